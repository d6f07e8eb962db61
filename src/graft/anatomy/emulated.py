"""What the configuration of an emulator says of the model that it stands for: see `graft emulate`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from graft.errors import BadInput

KEY = "graft_emulates"


@dataclass(frozen=True)
class Emulated:
    """The full model of an emulator.

    layers: how many blocks it has; kept: which of them the emulator has, in order; ends: how many at the bottom, and
    again at the top, are whole; base, revision, fingerprint: which model it is.
    """

    layers: int
    kept: tuple[int, ...]
    ends: int
    base: str
    revision: str
    fingerprint: Mapping[str, Any]

    def write(self) -> dict[str, Any]:
        """As plain data, for the configuration."""
        return {**asdict(self), "kept": list(self.kept)}


def emulated(config: Any) -> Emulated | None:
    """What a configuration (or its plain data) says of a full model; None where it is of no emulator.

    Raises BadInput where what it says cannot be.
    """
    found = config.get(KEY) if isinstance(config, Mapping) else getattr(config, KEY, None)
    if found is None:
        return None
    try:
        said = Emulated(**{**found, "kept": tuple(found["kept"])})
        numbers = (said.layers, said.ends, *said.kept)
        whole = {*range(said.ends), *range(said.layers - said.ends, said.layers)}
        right = all(type(number) is int and 0 <= number <= said.layers for number in numbers)
        right = right and sorted(set(said.kept)) == list(said.kept) and whole <= set(said.kept)
        right = right and all(isinstance(text, str) for text in (said.base, said.revision))
        if not (right and said.ends and said.kept[-1] < said.layers and isinstance(said.fingerprint, Mapping)):
            raise ValueError
    except (TypeError, KeyError, ValueError) as error:
        raise BadInput(
            f"the configuration's {KEY} is not what `graft emulate` writes. Get the emulator again from its owner."
        ) from error
    return said
