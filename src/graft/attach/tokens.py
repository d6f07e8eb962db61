"""Where virtual tokens go in a batch: after each row's left padding, before its first real token."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Insertion:
    """A plan for one batch of `length` tokens: row b gets `counts[b]` of `most` virtual tokens.

    `source` (batch, length + most) says for each new place which old token it takes, `length + j` for virtual token j,
    `length + most` for filler; `target` (batch, length) says where each old token went. Both are None in the simple
    case of equal rows without a mask, where concatenation and a slice do the same.
    """

    length: int
    most: int
    counts: Tensor | None = None
    source: Tensor | None = None
    target: Tensor | None = None

    def join(self, real: Tensor, virtual: Tensor) -> Tensor:
        """(batch, length, d) and (batch, most, d) → (batch, length + most, d)."""
        if self.source is None:
            return torch.cat((virtual, real), 1)
        pool = torch.cat((real, virtual, torch.zeros_like(real[:, :1])), 1)
        return pool.gather(1, self.source[..., None].expand(-1, -1, real.shape[-1]))

    def widen(self, real: Tensor, fill: int | bool) -> Tensor:
        """(batch, length) → (batch, length + most), with `fill` at virtual tokens and 0 at filler."""
        if self.source is None:
            return torch.cat((real.new_full((len(real), self.most), fill), real), 1)
        pool = torch.cat((real, real.new_full((len(real), self.most), fill), torch.zeros_like(real[:, :1])), 1)
        return pool.gather(1, self.source)

    def trim(self, hidden: Tensor) -> Tensor:
        """(batch, length + most, d) → (batch, length, d): the real tokens, where they were."""
        if self.target is None:
            return hidden[:, self.most :]
        return hidden.gather(1, self.target[..., None].expand(-1, -1, hidden.shape[-1]))


def plan(mask: Tensor | None, batch: int, length: int, counts: tuple[int, ...], device: torch.device) -> Insertion:
    """The insertion for a batch; `mask` (batch, length) tells left padding, `counts` the virtual tokens of each row."""
    most = max(counts)
    if mask is None and min(counts) == most:
        return Insertion(length, most)
    lead = torch.zeros(batch, dtype=torch.long, device=device)
    if mask is not None:
        lead = (mask.to(torch.bool).cumsum(-1) == 0).sum(-1)
        lead = lead.masked_fill(lead == length, 0)
    number = torch.tensor(counts, device=device)
    # A shorter row is filled up on the side that is padded already. Nothing here waits for the device.
    filler_left = (most - number) * lead.any()
    new = torch.arange(length + most, device=device)[None].expand(batch, -1) - filler_left[:, None]
    begin, count = lead[:, None], number[:, None]
    source = torch.where(new < begin, new, torch.where(new < begin + count, length + new - begin, new - count))
    outside = (new < 0) | (new >= length + count)
    source = source.masked_fill(outside, length + most)
    old = torch.arange(length, device=device)[None].expand(batch, -1)
    target = old + count * (old >= begin) + filler_left[:, None]
    return Insertion(length, most, number, source, target)
