"""Save and load adapters: a folder of adapter.safetensors, graft.json, a model card, and PEFT's files where it can."""

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig

from graft.attach import Adapter, anatomy_of, probe, require
from graft.checkpoint import peft
from graft.checkpoint.card import card
from graft.checkpoint.comparison import compare
from graft.checkpoint.difference import difference
from graft.checkpoint.emulated import plug_back
from graft.checkpoint.fingerprint import Fingerprint, fingerprint
from graft.checkpoint.record import FILE, Record, described, versions
from graft.checkpoint.safe import inside, read_header, read_tensors
from graft.checkpoint.source import locate, native, weights
from graft.checkpoint.stored import affordable, attaching, fill, stored
from graft.checkpoint.tokenizers import save_tokenizer
from graft.errors import BadInput, Refused
from graft.files import writing_folder
from graft.method import describe

TENSORS = "adapter.safetensors"


def save(
    model: nn.Module,
    name: str,
    folder: str | Path,
    *,
    tokenizer: Any = None,
    extra: Mapping[str, Any] | None = None,
) -> Path:
    """Write adapter `name` to a folder, atomically: complete or not there. An adapter already in it is replaced.

    Stored is the deployed form. `extra`: plain data to keep beside it (task, labels, scores with intervals, data hash,
    seeds). Where PEFT knows the method, its two files are written too. Raises BadInput when the folder holds something
    else, or cannot be written; Refused for a model without a configuration or on the meta device.
    """
    adapter, target = require(model, name).adapters[name], Path(folder)
    _refuse_unsaveable(model, name)
    if target.exists() and not target.is_dir():
        raise BadInput(f"{target} is a file. Choose a folder.")
    if target.is_dir() and any(target.iterdir()) and not (target / FILE).exists():
        raise BadInput(
            f"{target} holds something that is no graft adapter, which saving would replace. Choose another folder."
        )
    record = _record(adapter, extra or {})
    with writing_folder(target) as temporary:
        tensors = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in stored(adapter).items()}
        save_file(tensors, temporary / TENSORS, metadata={"format": "pt"})
        if tokenizer is not None:
            record = replace(record, tokenizer=save_tokenizer(tokenizer, temporary))
        try:
            peft.write(adapter, temporary)
        except Refused as reason:
            record = replace(record, peft=str(reason))
        record.write(temporary)
        (temporary / "README.md").write_text(card(record), encoding="utf-8")
    return target


def load(
    model: nn.Module,
    folder: str | Path,
    name: str | None = None,
    *,
    check: bool = True,
    head: bool = True,
    force: bool = False,
    revision: str | None = None,
    batch: Mapping[str, Tensor] | None = None,
) -> Adapter:
    """Attach the adapter in `folder` (or of a Hub id, at `revision`) to `model`; `name`: instead of the one it has.

    Graft's own format and PEFT's are read; only safetensors, never a pickle. Ends that were tuned on an emulator go
    onto the full model as onto the emulator. `force`: load onto a base that differs from the one it was trained on;
    what it was measured to do no longer holds. `head`: with the task head that was trained with it, where it has one;
    without, the model's head may be of another task. `check`: run the adapter once and refuse it with NotApplied when
    it changes nothing (`batch`: on these inputs). Raises BadInput for files that are not what they claim and a base
    that differs, saying how; on any error the model is left as it was.
    """
    place = locate(folder, revision)
    if not native(place):
        return peft.load(model, place, name or "default", check=check, head=head, batch=batch)
    file = inside(place, FILE)
    assert file is not None
    record = Record.read(file)
    path = weights(place, TENSORS)
    header = read_header(path)
    back = plug_back(model, record, force)
    remarks = check_base(model, record, force, head) if back is None else back.remarks
    called = {name: name for name in header} if back is None else back.names(header)
    method = described(file, record.method)
    remarks += _changed(record.method, describe(method))
    affordable(path, model, method, header)
    with attaching(model, method, name or record.name, record.head and head) as adapter:
        if not head:
            header = {key: entry for key, entry in header.items() if not _of_a_head(called[key], adapter)}
        adapter.resize({called[key]: entry.shape for key, entry in header.items()})
        compare(path, {called[key]: entry for key, entry in header.items()}, stored(adapter))
        fill(adapter, {called[key]: tensor for key, tensor in read_tensors(path, header).items()})
        if check:
            probe(model, adapter.name, batch)
    adapter.remarks += remarks
    return adapter


def read(folder: str | Path, revision: str | None = None) -> Record:
    """What a graft adapter's folder says about itself, without a model: method, base, scores, labels, versions."""
    place = locate(folder, revision)
    path = inside(place, FILE)
    if path is None:
        raise BadInput(f"{place} has no {FILE}: it holds no adapter that graft saved.")
    return Record.read(path)


def check_base(model: nn.Module, record: Record, force: bool = False, head: bool = True) -> tuple[str, ...]:
    """What is worth knowing of the base `model` beside the one saved. Raises BadInput where it is another one.

    head: whether a task head counts.
    """
    saved, here = Fingerprint.from_json(record.base.get("fingerprint")), fingerprint(model)
    if not head:
        heads = anatomy_of(model).head_paths
        saved, here = saved.outside(heads), here.outside(heads)
    found = difference(saved, here)
    if not found.faults:
        return found.remarks
    base = f"{record.base.get('id') or saved.kind} (revision {record.base.get('revision') or 'not recorded'})"
    told = "\n".join(f"  - {fault}" for fault in found.faults)
    if force:
        return (*found.remarks, f"loaded by force onto another base than {base}:\n{told}")
    raise BadInput(
        f"{record.name!r} was made for {base}, and this {type(model).__name__} is not it:\n{told}\n"
        "force=True loads it all the same; then nothing that was measured of it holds."
    )


def _of_a_head(name: str, adapter: Adapter) -> bool:
    """Whether a tensor is of a task head that was stored, and not of a part that acts at one."""
    return name.startswith("head.") and not any(name.startswith(f"{key}.") for key in adapter.parts)


def _changed(saved: Mapping[str, Any], here: Mapping[str, Any]) -> tuple[str, ...]:
    """What to know where a method from outside is not the code that the adapter was saved with."""
    pairs = zip(saved.get("sum", [saved]), here.get("sum", [here]), strict=True)
    return tuple(
        f"{new['method']} is another than when this was saved: then {old.get('from', 'from graft itself')}, now "
        f"{new.get('from', 'from graft itself')}"
        for old, new in pairs
        if old.get("from") != new.get("from")
    )


def _refuse_unsaveable(model: nn.Module, name: str) -> None:
    if not isinstance(getattr(model, "config", None), PreTrainedConfig):
        raise Refused(
            f"{type(model).__name__} has no configuration of transformers, by which a folder knows its base. Keep the "
            "tensors of adapter.named_parameters() yourself, and attach the same method before filling them in."
        )
    if any(parameter.is_meta for parameter in model.parameters()):
        raise Refused(f"{name!r} is on the meta device: it has shapes and no numbers. Load the model, then train it.")


def _record(adapter: Adapter, extra: Mapping[str, Any]) -> Record:
    model, config = adapter.model, adapter.model.config
    method = adapter.method.serving()
    return Record(
        name=adapter.name,
        method=describe(method),
        trained_as=describe(adapter.method),
        expression="; ".join(term.expression() for term in method.methods() if term.expression()),
        sites=tuple(dict.fromkeys(placed.key for placed in adapter.placed if placed.site is not None)),
        coverage=adapter.coverage,
        head=any(placed.head for placed in adapter.placed),
        counts=asdict(adapter.counts),
        base={
            "id": config._name_or_path or "",  # type: ignore[union-attr]
            "revision": getattr(config, "_commit_hash", None) or "",
            "fingerprint": fingerprint(model, adapter.name).as_json(),
        },
        extra=dict(extra),
        versions=versions(),
    )
