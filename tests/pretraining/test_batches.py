"""Batches depend on the seed and the step alone, see every window once in an epoch, and fit the model's length."""

import numpy as np
import pytest
import torch

from graft.pretraining.batches import Batches, collate, prefix_mask, window_for
from graft.pretraining.objectives import BY_NAME, IGNORED, Example, Marks

MARKS = Marks(
    1103, end=1, mask=2, special=frozenset({0, 1, 2}), sentinels=tuple(range(1000, 1100)), modes=(1100, 1101, 1102)
)


def batches(objective: str = "causal", shape: str = "decoder", length: int = 16, seed: int = 0) -> Batches:
    tokens = np.arange(3, 983, dtype=np.uint16)
    return Batches(tokens, length, 4, objective, shape, MARKS, 0, seed)  # type: ignore[arg-type]


def test_an_epoch_sees_every_window_once_and_the_next_in_another_order() -> None:
    made = batches()
    rows = torch.cat([made.at(step)["input_ids"] for step in range(31)])
    first, second = rows[: made.windows], rows[made.windows : 2 * made.windows]
    for epoch in (first, second):
        starts = sorted(int(row[0]) for row in epoch)
        assert len(set(np.diff(starts))) == 1 and starts[1] - starts[0] == 16
        assert all(row.tolist() == list(range(int(row[0]), int(row[0]) + 16)) for row in epoch)
    assert first.tolist() != second.tolist()


def test_the_seed_and_the_step_decide_alone() -> None:
    made = batches("masked", "encoder")
    later = made.at(7)
    made.at(3)
    assert all(torch.equal(later[name], made.at(7)[name]) for name in later)
    assert not torch.equal(later["input_ids"], batches("masked", "encoder", seed=1).at(7)["input_ids"])


@pytest.mark.parametrize("objective", ["prefix", "span", "mixture"])
@pytest.mark.parametrize("shape", ["decoder", "encoder-decoder"])
@pytest.mark.parametrize("length", [32, 100, 512])
def test_examples_fit_the_length(objective: str, shape: str, length: int) -> None:
    window = window_for(objective, shape, length, 100)  # type: ignore[arg-type]
    assert window > length / 2
    for seed in range(50):
        example = BY_NAME[objective](np.arange(3, 3 + window), MARKS, np.random.default_rng(seed))  # type: ignore[index]
        sizes = (
            [len(example.source) + len(example.target)]
            if shape == "decoder"
            else [len(example.source), len(example.target)]
        )
        assert max(sizes) <= length


def test_a_decoder_is_asked_for_the_target_alone() -> None:
    rows = [Example(np.array([5, 6]), np.array([7, 8, 9])), Example(np.array([5]), np.array([6]))]
    made = collate(rows, "decoder", 0)
    assert made["input_ids"].tolist() == [[5, 6, 7, 8, 9], [5, 6, 0, 0, 0]]
    assert made["labels"].tolist() == [[IGNORED, IGNORED, 7, 8, 9], [IGNORED, 6, IGNORED, IGNORED, IGNORED]]
    seen = made["attention_mask"][:, 0] == 0
    for row, source in enumerate((2, 1)):
        for query in range(5):
            assert seen[row, query].tolist() == [key < source or key <= query for key in range(5)]


def test_an_encoder_decoder_reads_the_source_and_says_the_target() -> None:
    rows = [Example(np.array([5, 6]), np.array([7, 8, 9])), Example(np.array([5]), np.array([6]))]
    made = collate(rows, "encoder-decoder", 0)
    assert made["input_ids"].tolist() == [[5, 6], [5, 0]] and made["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert made["labels"].tolist() == [[7, 8, 9], [6, IGNORED, IGNORED]]


def test_prefix_mask_is_added_to_scores() -> None:
    mask = prefix_mask([1], 2)
    assert mask.shape == (1, 1, 2, 2) and mask[0, 0, 0, 0] == 0 and mask[0, 0, 0, 1] < -1e30
