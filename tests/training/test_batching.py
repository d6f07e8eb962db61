"""The order of rows: every row once, from the seed and the epoch alone, like lengths together."""

from hypothesis import given
from hypothesis import strategies as st

from graft.training.batching import Order


@given(
    st.lists(st.integers(1, 500), min_size=1, max_size=300), st.integers(1, 40), st.integers(0, 9), st.integers(0, 9)
)
def test_every_row_once_and_the_same_every_time(lengths: list[int], batch: int, seed: int, epoch: int) -> None:
    order = Order(lengths, batch, seed)
    order.set_epoch(epoch)
    rows = list(order)
    assert sorted(rows) == list(range(len(lengths))) and len(order) == len(lengths)
    list(order)  # reading it does not change it
    again = Order(lengths, batch, seed)
    again.set_epoch(epoch)
    assert list(again) == rows


def test_epochs_and_seeds_differ() -> None:
    lengths = [1 + number % 7 for number in range(64)]
    orders = []
    for seed, epoch in ((0, 0), (0, 1), (1, 0)):
        order = Order(lengths, 8, seed)
        order.set_epoch(epoch)
        orders.append(tuple(order))
    assert len(set(orders)) == 3


def test_batches_waste_less_than_half_of_what_a_random_order_wastes() -> None:
    import random

    draw = random.Random(0)
    lengths = [min(512, int(draw.lognormvariate(4, 0.8)) + 1) for _ in range(2000)]

    def wasted(rows: list[int]) -> int:
        parts = [[lengths[row] for row in rows[at : at + 8]] for at in range(0, len(rows), 8)]
        return sum(max(part) * len(part) - sum(part) for part in parts)

    shuffled = draw.sample(range(2000), 2000)
    assert wasted(list(Order(lengths, 8, 0))) < 0.2 * wasted(shuffled)


def test_batches_are_not_the_same_in_every_epoch() -> None:
    lengths = [1 + number % 50 for number in range(640)]
    batches = []
    for epoch in (0, 1):
        order = Order(lengths, 16, 0)
        order.set_epoch(epoch)
        rows = list(order)
        batches.append({frozenset(rows[at : at + 16]) for at in range(0, 640, 16)})
    assert not batches[0] & batches[1]
