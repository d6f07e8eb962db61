"""Where virtual tokens go: joined and trimmed again, whatever the padding and whatever each row's number of them."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from graft.attach.tokens import plan


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor | None, tuple[int, ...], int]:
    """A padding mask (left or right, or None), the number of virtual tokens of each row, and the length."""
    rows, length = draw(st.integers(1, 4)), draw(st.integers(1, 7))
    counts = tuple(draw(st.lists(st.integers(0, 4), min_size=rows, max_size=rows)))
    side = draw(st.sampled_from(["none", "left", "right"]))
    if side == "none":
        return None, counts, length
    mask = torch.zeros(rows, length, dtype=torch.long)
    for row in range(rows):
        real = draw(st.integers(1, length))
        mask[row, length - real :] = 1 if side == "left" else mask[row, length - real :]
        mask[row, :real] = 1 if side == "right" else mask[row, :real]
    return mask, counts, length


def joined(
    mask: Tensor | None, counts: tuple[int, ...], length: int
) -> tuple[list[list[int]], list[list[int]], Tensor]:
    """Rows of ids 1…length with virtual tokens 101, 102, …; their mask; and what trimming gives back."""
    insertion = plan(mask, len(counts), length, counts, torch.device("cpu"))
    real = torch.arange(1.0, length + 1).expand(len(counts), -1)
    virtual = torch.arange(101.0, 101 + max(counts)).expand(len(counts), -1)
    made = insertion.join(real[..., None], virtual[..., None])
    seen = insertion.widen(torch.ones(len(counts), length, dtype=torch.long) if mask is None else mask, 1)
    return made[..., 0].int().tolist(), seen.tolist(), insertion.trim(made)[..., 0]


@given(batches())
def test_trimming_undoes_joining(batch: tuple[Tensor | None, tuple[int, ...], int]) -> None:
    mask, counts, length = batch
    _, _, back = joined(mask, counts, length)
    assert torch.equal(back, torch.arange(1.0, length + 1).expand(len(counts), -1))


@given(batches())
def test_each_row_reads_its_own_virtual_tokens_then_its_real_ones(
    batch: tuple[Tensor | None, tuple[int, ...], int],
) -> None:
    """What the mask lets through is exactly the row without padding: virtual tokens, then real ones, in order."""
    mask, counts, length = batch
    ids, seen, _ = joined(mask, counts, length)
    for row, count in enumerate(counts):
        real = [i + 1 for i in range(length) if mask is None or mask[row, i]]
        visible = [value for value, on in zip(ids[row], seen[row], strict=True) if on]
        assert visible == [*range(101, 101 + count), *real]
        assert len(ids[row]) == length + max(counts)


@given(batches())
def test_padding_stays_on_its_side(batch: tuple[Tensor | None, tuple[int, ...], int]) -> None:
    """The visible tokens of a row stand together, at the end they stood at before."""
    mask, counts, length = batch
    _, seen, _ = joined(mask, counts, length)
    left = mask is not None and bool((mask[:, 0] == 0).any())
    for row in seen:
        visible = [i for i, on in enumerate(row) if on]
        assert visible == list(range(visible[0], visible[-1] + 1))
        assert not left or visible[-1] == len(row) - 1
        assert left or visible[0] == 0


def test_equal_rows_without_padding_are_a_plain_concatenation() -> None:
    insertion = plan(None, 2, 5, (3, 3), torch.device("cpu"))
    assert insertion.source is None and insertion.target is None


def test_a_row_of_padding_alone_does_not_break() -> None:
    mask = torch.tensor([[0, 0, 0], [0, 1, 1]])
    insertion = plan(mask, 2, 3, (2, 2), torch.device("cpu"))
    real = torch.arange(3.0).expand(2, -1)[..., None]
    assert torch.equal(insertion.trim(insertion.join(real, torch.full((2, 2, 1), 9.0))), real)
