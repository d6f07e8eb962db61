"""From the options of `graft plug` to an adapter's folder."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graft import checkpoint
from graft.checkpoint.record import FILE
from graft.checkpoint.source import native
from graft.errors import BadInput, Refused
from graft.loading import find_base, kept_with, load_generator
from graft.training.space import check_writable
from graft.transfer.plugging import plug
from graft.transfer.texts import encoded, pieces

if TYPE_CHECKING:
    from graft.verbs.plug import Options


def write(options: "Options") -> tuple[dict[str, Any], list[str], str]:
    """Fit the bridge, and write the adapter: a summary, what to know, and the command to use it.

    Raises BadInput where the adapter does not say what it was made for, Refused where the models read the texts as
    other tokens, and what `graft.transfer.plugging.plug` raises.
    """
    place = checkpoint.locate(options.adapter)
    record = checkpoint.read(place) if native(place) else None
    kept = kept_with(place)
    refuse_taken(options.output)
    if record is not None and record.head:
        raise Refused(
            f"{options.adapter} has a task head of its own, which knows the small model's states alone. Plug one that "
            "was trained with a language model's own head, such as by `graft tune --task generation`."
        )
    given = options.small or str(kept.get("base") or (record.base.get("id") if record else "") or "")
    if not given:
        raise BadInput(f"{options.adapter} does not say which model it was made for: name it with --small.")
    both = [find_base(model, options.trust_remote_code) for model in (options.model, given)]
    ours, theirs = encoded(options.data, both, options.columns, kept.get("task"))
    _refuse_other_tokens(ours, theirs)
    rows = pieces(ours, both, options.length, options.rows)
    large, small = (load_generator(each, dtype=options.dtype, device=options.device) for each in both)
    name = options.name or (record.name if record else "default")
    made = plug(
        large, small, place, rows, fit=options.fit, name=name, train_bridge=options.train_bridge, force=options.force,
        show=sys.stderr.isatty(),
    )  # fmt: skip
    about = {
        "small": given, "fit": options.fit, "texts": len(rows), "tokens": made.tokens, "mismatch": made.mismatch,
        "mismatch_unfitted": made.unfitted,
    }  # fmt: skip
    extra = {name: value for name, value in kept.items() if name in ("task", "data", "seed")}
    extra |= {"base": options.model, "plugged": about}
    folder = checkpoint.save(large, name, options.output, tokenizer=both[0].tokenizer, extra=extra)
    summary = {
        "small": given, "large": options.model, "coverage": "; ".join(made.adapter.reach()),
        "texts": f"{len(rows)} of {made.tokens:,} tokens and those measured on", "mismatch": made.mismatch,
        "mismatch_unfitted": made.unfitted, "stored": f"{made.adapter.counts.stored / 1024:,.1f} KiB",
        "adapter": str(folder),
    }  # fmt: skip
    command = ["graft", "evaluate", "--model", options.model, "--adapter", str(folder), "--data", options.data]
    return summary, _notes(made.mismatch), shlex.join(command)


def refuse_taken(output: Path) -> None:
    """Refuse, before anything is computed, a folder that saving would refuse."""
    if output.exists() and not (output / FILE).exists() and (not output.is_dir() or any(output.iterdir())):
        raise BadInput(f"{output} holds something that is no graft adapter. Choose another --output.")
    check_writable(output.parent)


def _notes(mismatch: float) -> list[str]:
    found = ["nothing was trained: whether the adapter helps the larger model is for `graft evaluate` to say"]
    if mismatch > 0.5:
        found.append(
            f"{mismatch:.0%} of what one model's hidden states are is not linear in the other's: give more texts, or "
            "do not expect much"
        )
    return found


def _refuse_other_tokens(large: Sequence[Sequence[int]], small: Sequence[Sequence[int]]) -> None:
    differ = [number for number, (a, b) in enumerate(zip(large, small, strict=False)) if list(a) != list(b)]
    if differ or len(large) != len(small):
        raise Refused(
            f"the two models read text {(differ or [0])[0] + 1} as other tokens, so their hidden states are not of the "
            "same things. Plug an adapter into a model of the same family, with the same tokenizer."
        )
