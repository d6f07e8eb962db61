"""What one forward pass of one stack knows: made when it begins, never changed, and kept by its checkpointed segments."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from graft.anatomy.site import Site
from graft.attach.tokens import Insertion

Names = str | None | tuple[str | None, ...]
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Call:
    """One forward of one stack.

    `names`: the adapter in use, None for the base, or one of these per row. `mask`: (batch, length) padding mask of the
    tokens the stack sees, or None when nothing is padded. `past`: number of tokens already in the cache. `cache`: the
    cache object or None. `shift`: how far virtual keys move the positions of real tokens, one number or one per row.
    `prefixes`: keys and values computed from virtual tokens, by adapter and attention path. `harvest`: filled with the
    keys and values of every attention while such a prefix is being computed. `inserted`: where virtual tokens stand among
    the real ones, and `trims` whether the outputs there are cut off.
    """

    names: Names = None
    stack: str = ""
    mask: Tensor | None = None
    past: Any = 0
    cache: Any = None
    shift: int | Tensor = 0
    prefixes: dict[str, dict[str, KeysValues]] = field(default_factory=dict)
    harvest: dict[str, KeysValues] | None = None
    inserted: Insertion | None = None
    trims: bool = True
    captured: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    @property
    def mixed(self) -> bool:
        """Whether rows of the batch use different adapters."""
        return isinstance(self.names, tuple)

    def used(self) -> tuple[str, ...]:
        """The distinct adapters in use, in order of first appearance."""
        names = self.names if isinstance(self.names, tuple) else (self.names,)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def per_row(self, size: int) -> tuple[str | None, ...]:
        """One name for each of `size` leading entries: rows repeat for beams and for flattened tokens."""
        if not isinstance(self.names, tuple):
            return (self.names,) * size
        times, rest = divmod(size, len(self.names))
        if rest:
            raise ValueError(f"{size} rows cannot be shared out over {len(self.names)} adapter names")
        return tuple(name for name in self.names for _ in range(times))

    def rows_of(self, name: str, size: int, device: torch.device) -> Tensor | None:
        """Indices of the leading entries that use `name`; None means all of them."""
        if not self.mixed:
            return None
        rows = [index for index, other in enumerate(self.per_row(size)) if other == name]
        return torch.tensor(rows, device=device)

    def capture(self, point: str, site: Site, value: Tensor) -> None:
        """Keep what passed a site's `entry` or `residual` point until its exit."""
        self.captured[point, site.name] = value

    def residual(self, site: Site) -> Tensor:
        """The residual stream around an `attention` or `ffn` site: what will be added to the sub-layer's output."""
        return self.captured["residual", site.name]
