"""The order of the training rows: random, from seed and epoch alone, with rows of like length side by side.

Random order pads most batches to a long row. Sorting within windows of some batches computes about half as many tokens
on text of usual lengths, and the batches still come in random order with members that differ between epochs.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler

WINDOW = 50  # batches that are sorted together, at most
NOISE = 0.1  # relative disturbance of lengths before sorting, so that equal neighbors part


class Order(Sampler[int]):
    """Row numbers for one epoch after another; `set_epoch` makes the order a function of the epoch."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths = torch.tensor(lengths, dtype=torch.float64)
        self.batch = batch
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        rows = torch.randperm(len(self.lengths), generator=generator)
        noise = 1 + NOISE * (2 * torch.rand(len(rows), generator=generator, dtype=torch.float64) - 1)
        batches = -(-len(rows) // self.batch)
        window = self.batch * max(1, min(WINDOW, batches // 4))
        blurred = self.lengths * noise
        ordered = torch.cat([part[blurred[part].argsort(stable=True)] for part in rows.split(window)])
        groups = list(ordered.split(self.batch))
        whole = [group for group in groups if len(group) == self.batch]
        # The incomplete batch comes last, or the batches after it would be cut differently.
        rest = [group for group in groups if len(group) < self.batch]
        shuffled = [whole[at] for at in torch.randperm(len(whole), generator=generator).tolist()]
        yield from torch.cat([*shuffled, *rest]).tolist()
