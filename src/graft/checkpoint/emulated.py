"""Blocks that were tuned on an emulator, onto the full model: which name there each of their tensors has."""

from collections.abc import Iterable

from torch import nn

from graft.anatomy.emulated import Emulated, emulated
from graft.attach import anatomy_of
from graft.checkpoint.difference import difference
from graft.checkpoint.fingerprint import Fingerprint, fingerprint
from graft.checkpoint.record import Record
from graft.checkpoint.stored import IN_PLACE
from graft.errors import BadInput, Refused


class PlugBack:
    """How the tensors of an adapter from an emulator are called on the full model."""

    def __init__(self, full: Emulated, model: nn.Module, remarks: tuple[str, ...]) -> None:
        self.full, self.remarks, self.layers = full, remarks, _layers(model)

    def names(self, stored: Iterable[str]) -> dict[str, str]:
        """The name on the full model by the stored one: blocks at the bottom stay, those at the top move up.

        Raises Refused for tensors that have no place there.
        """
        found = {name: self._there(name) for name in stored}
        if without := [name for name, there in found.items() if there is None]:
            raise Refused(
                f"this adapter was made on an emulator, and {without[0]} ({len(without)} of its tensors) is nothing of "
                f"the {self.full.ends} whole blocks at each end, which alone the full model has too. Tune the ends: "
                f"--method offsite --offsite.ends {self.full.ends}."
            )
        return {name: there for name, there in found.items() if there is not None}

    def _there(self, name: str) -> str | None:
        """The name of a tensor on the full model; None for one that is of no end, and of no task head."""
        kept, ends = self.full.kept, self.full.ends
        for index in (*range(ends), *range(len(kept) - ends, len(kept))):
            start = f"{IN_PLACE}{self.layers[index]}."
            if name.startswith(start):
                return f"{IN_PLACE}{self.layers[kept[index]]}.{name.removeprefix(start)}"
        return name if name.startswith("head.") else None


def plug_back(model: nn.Module, record: Record, force: bool) -> PlugBack | None:
    """How an adapter that was made on an emulator goes onto `model`; None where it was not, or `model` is one itself.

    Raises BadInput where `model` is not what the emulator stands for.
    """
    saved = Fingerprint.from_json(record.base.get("fingerprint"))
    full = emulated(saved.config)
    if full is None or emulated(model.config) is not None:
        return None
    found = difference(Fingerprint.from_json(full.fingerprint), fingerprint(model))
    told = "\n".join(f"  - {fault}" for fault in found.faults)
    if not found.faults:
        return PlugBack(full, model, (*found.remarks, "tuned on an emulator, and plugged back into the full model"))
    if force and len(_layers(model)) == full.layers:
        return PlugBack(full, model, (f"loaded by force onto another model than its emulator was made of:\n{told}",))
    raise BadInput(
        f"{record.name!r} was tuned on an emulator of {full.base or 'a model'} (revision "
        f"{full.revision or 'not recorded'}), and this {type(model).__name__} is not that model:\n{told}\n"
        "Load the model that the emulator was made of, or the emulator itself."
    )


def _layers(model: nn.Module) -> tuple[str, ...]:
    return anatomy_of(model).stacks[-1].layers
