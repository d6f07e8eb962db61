"""A role's share of a fused projection: taking and putting are inverse, and match the layouts of known models."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from graft.anatomy import Rows


@st.composite
def shares(draw: st.DrawFn) -> Rows:
    groups, per_group, width = draw(st.integers(1, 4)), draw(st.integers(1, 5)), draw(st.integers(1, 3))
    start = draw(st.integers(0, per_group - 1))
    return Rows(groups, per_group, start, draw(st.integers(start + 1, per_group)), width)


@given(shares(), st.sampled_from([0, 1, -1, -2]))
def test_put_after_take_is_nothing_and_take_after_put_is_the_share(rows: Rows, axis: int) -> None:
    whole = torch.randn(*([rows.groups * rows.per_group * rows.width] * 2))
    share = rows.take(whole, axis)
    assert share.shape[axis] == rows.size
    assert torch.equal(rows.put(whole, share, axis), whole)
    other = torch.randn_like(share)
    changed = rows.put(whole, other, axis)
    assert torch.equal(rows.take(changed, axis), other)
    # Everything else is as it was: one group's others, and the other axis's order.
    kept = torch.ones(whole.shape[axis], dtype=torch.bool)
    kept[rows.take(torch.arange(whole.shape[axis]), 0)] = False
    assert torch.equal(changed.movedim(axis, 0)[kept], whole.movedim(axis, 0)[kept])


def test_contiguous_thirds() -> None:
    assert Rows(1, 3, 1, 2, 4).take(torch.arange(12), 0).tolist() == [4, 5, 6, 7]


def test_interleaved_by_head() -> None:
    """GPT-NeoX: for each of two heads q, k and v of width two; values are the last third of each head."""
    assert Rows(2, 3, 2, 3, 2).take(torch.arange(12), 0).tolist() == [4, 5, 10, 11]
