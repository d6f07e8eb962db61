"""Sharing out rows: one name for each, repeated for beams and for tokens laid flat."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graft.attach.call import Call
from graft.errors import Refused

NAMES = st.lists(st.sampled_from(["a", "b", None]), min_size=1, max_size=5).map(tuple)


@given(NAMES, st.integers(1, 4))
def test_rows_repeat_and_are_shared_out_completely(names: tuple[str | None, ...], times: int) -> None:
    call = Call(names=names)
    rows = call.per_row(len(names) * times)
    assert rows == tuple(name for name in names for _ in range(times))
    found = {name: call.rows_of(name, len(rows), torch.device("cpu")).tolist() for name in call.used()}
    assert sorted(i for own in found.values() for i in own) == [i for i, name in enumerate(rows) if name is not None]
    assert all(rows[i] == name for name, own in found.items() for i in own)


def test_a_number_that_does_not_divide_is_an_error() -> None:
    with pytest.raises(Refused, match="5 cannot be shared out over 2 adapter names"):
        Call(names=("a", None)).per_row(5)


def test_one_name_is_for_all_rows() -> None:
    call = Call(names="a")
    assert call.per_row(3) == ("a", "a", "a") and call.rows_of("a", 3, torch.device("cpu")) is None and not call.mixed
    assert Call().used() == () and Call(names=("b", None, "a", "b")).used() == ("b", "a")
