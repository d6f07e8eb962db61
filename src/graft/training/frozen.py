"""What frozen layers give, computed once: for a head alone, the top layers, a side network, a method at high sites.

A `Trunk` keeps it for any number of runs on one base: each run starts from the highest kept state below what it trains.
The frozen layers then run without their own dropout, in all epochs and for all who share the trunk.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from graft.attach import Adapter
from graft.attach.mode import in_mode
from graft.attach.skip import Frozen, frozen, skipped, tensors
from graft.data.task import Features
from graft.memory import available
from graft.scoring import length

SHARE = 0.25  # of the memory that is free
CLOSE, CLOSE_IN_HALF = 1e-4, 3e-2  # largest relative difference of the loss, and of a gradient
SMALL = 1e-2  # a gradient below this share of all gradients carries their rounding

Loss = Callable[[Sequence[Features]], Tensor]


class Trunk:
    """States of rows by layer, kept on the device of the base. Rows for which there is no room are computed each time.

    share: of the memory that is free at the first use, how much may be taken. `bytes`: taken so far; `seconds`: spent
    in computing states. Weights that differ from those that states were computed with empty the trunk.
    """

    def __init__(self, share: float = SHARE) -> None:
        self.share, self.bytes, self.limit, self.seconds = share, 0, 0, 0.0
        self.extras: int | None = None
        self._kept: dict[tuple[bytes, int], Tensor] = {}
        self._weights: dict[int, tuple[object, ...]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, row: bytes, layer: int) -> Tensor | None:
        """The state of a row after a layer, (tokens, width), if it was kept."""
        return self._kept.get((row, layer))

    def put(self, row: bytes, layer: int, state: Tensor) -> None:
        """Keep a state, if there is room."""
        size = state.numel() * state.element_size()
        if (row, layer) not in self._kept and self.bytes + size <= self.limit:
            self._kept[row, layer] = state
            self.bytes += size

    def open(self, adapter: Adapter, found: Frozen) -> None:
        """Make sure that what is kept was computed with the weights that the base has up to the frozen depth."""
        weights = _weights(adapter, found)
        if any(self._weights.get(layer, now) != now for layer, now in weights.items()):
            self._kept.clear()
            self._weights.clear()
            self.bytes = 0
        self._weights |= weights
        if not self._kept:
            self.limit = int(self.share * available(next(adapter.model.parameters()).device))


@contextmanager
def skipping(
    adapter: Adapter, trunk: Trunk | None, rows: Sequence[Features], loss: Loss, half: bool = False
) -> Iterator[bool]:
    """Within the `with`, forwards with `adapter` start from what `trunk` keeps, where that changes nothing: is it so?

    Nothing is skipped without a trunk, for an adapter that touches the lowest layer, and for a model whose `loss` or
    gradients on the shortest beside the longest of `rows` come out differently (positions may depend on padding).
    half: the arithmetic is in half precision, whatever the weights are in.
    """
    found = frozen(adapter) if trunk is not None else None
    if found is None or trunk is None:
        yield False
        return
    trunk.open(adapter, found)
    pair = [min(rows, key=length), max(rows, key=length)]
    with in_mode(adapter.model, training=False):
        plain = _slopes(adapter, loss(pair))
        with skipped(adapter, found, trunk):
            ours = _slopes(adapter, loss(pair))
    half = half or next(adapter.model.parameters()).dtype not in (torch.float32, torch.float64)
    if not _close(plain, ours, CLOSE_IN_HALF if half else CLOSE):
        yield False
        return
    with skipped(adapter, found, trunk):
        yield True


def _slopes(adapter: Adapter, loss: Tensor) -> list[Tensor]:
    """The loss and its gradients."""
    gradients = torch.autograd.grad(loss, adapter.parameters(), allow_unused=True)
    return [loss.detach(), *(g if g is not None else loss.new_zeros(()) for g in gradients)]


def _close(plain: Sequence[Tensor], ours: Sequence[Tensor], close: float) -> bool:
    """Whether each tensor is the same up to rounding, which for a small gradient comes from the large ones."""
    norms = [float(torch.linalg.vector_norm(each)) for each in plain]
    whole = sum(norm**2 for norm in norms[1:]) ** 0.5
    apart = [float(torch.linalg.vector_norm(one - other)) for one, other in zip(plain, ours, strict=True)]
    slack = [close * norms[0], *(close * (norm + SMALL * whole) for norm in norms[1:])]
    return all(distance <= most for distance, most in zip(apart, slack, strict=True))


def _weights(adapter: Adapter, found: Frozen) -> dict[int, tuple[object, ...]]:
    """What the frozen layers, and what comes before them, are made of: the sum of each tensor, by layer."""
    made: dict[int, tuple[object, ...]] = {}
    for layer, path, tensor in tensors(adapter, found):
        made[layer] = (*made.get(layer, ()), path, tensor.dtype, tensor.device, _sum(tensor))
    return made


def _sum(tensor: Tensor) -> float:
    return float(tensor.detach().sum(dtype=torch.float64))
