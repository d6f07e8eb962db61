"""From the options of `graft emulate` to an emulator's folder."""

import shlex
import sys
from typing import TYPE_CHECKING, Any

from graft.anatomy.emulated import emulated
from graft.anatomy.tree import ranges
from graft.errors import BadInput, Refused
from graft.files import writing_folder
from graft.loading import find_base, load_generator
from graft.training.space import check_writable
from graft.transfer.emulator import distill, emulate
from graft.transfer.texts import encoded, pieces

if TYPE_CHECKING:
    from graft.verbs.emulate import Options


def write(options: "Options") -> tuple[dict[str, Any], str]:
    """Make the emulator and write it: a summary, and the command to tune it.

    Raises BadInput for a folder that is there and for impossible numbers, Refused for a model that has no emulator.
    """
    if options.output.exists() and (not options.output.is_dir() or any(options.output.iterdir())):
        raise BadInput(f"{options.output} is there already, and would be replaced. Choose another --output.")
    check_writable(options.output.parent)
    source = find_base(options.model, options.trust_remote_code)
    if emulated(source.config) is not None:
        raise Refused(f"{options.model} is an emulator itself. Make one of the full model.")
    texts = None
    if options.distill is not None:
        (read,) = encoded(options.distill, [source], options.columns)
        texts = pieces(read, [source], options.length, options.rows)
    full = load_generator(source, dtype=options.dtype, device=options.device)
    made = emulate(full, options.ends, options.keep, options.model)
    said = emulated(made.config)
    assert said is not None
    summary: dict[str, Any] = {
        "full": f"{options.model} ({said.layers} blocks, {_size(full):,} parameters)",
        "emulator": f"{len(said.kept)} blocks, {_size(made):,} parameters",
        "blocks": ranges(said.kept),
    }
    if texts is not None:
        before, after = distill(
            full, made, texts, steps=options.steps, rate=options.rate, batch=options.batch, seed=options.seed,
            show=sys.stderr.isatty(),
        )  # fmt: skip
        summary |= {"middle_off_by": before, "middle_off_by_distilled": after}
    made.to(source.config.dtype or next(full.parameters()).dtype)
    with writing_folder(options.output) as temporary:
        made.save_pretrained(temporary)
        source.tokenizer.save_pretrained(temporary)
    summary["folder"] = str(options.output)
    words = ["graft", "tune", str(options.output), "rows.jsonl", "--method", "offsite"]
    return summary, shlex.join([*words, "--offsite.ends", str(options.ends)])


def _size(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
