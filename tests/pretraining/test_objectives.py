"""Each objective against its definition: what is dropped can be put back, the rates are the stated ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.pretraining.objectives import (
    BY_NAME,
    IGNORED,
    OBJECTIVES,
    Example,
    Marks,
    causal,
    masked,
    mixture,
    prefix,
    span,
)

SENTINELS = tuple(range(900, 1000))
MARKS = Marks(
    1003,
    start=None,
    end=1,
    mask=2,
    special=frozenset({0, 1, 2, *range(900, 1003)}),
    sentinels=SENTINELS,
    modes=(1000, 1001, 1002),
)
windows = st.lists(st.integers(3, 899), min_size=4, max_size=200).map(lambda ids: np.array(ids, dtype=np.int64))
generators = st.integers(0, 10**6).map(np.random.default_rng)


def put_back(example: Example) -> list[int]:
    """The window, from a source with sentinels and a target that says what each stands for."""
    spans: dict[int, list[int]] = {}
    assert example.target[-1] == MARKS.end
    for token in example.target[:-1].tolist():
        if token in SENTINELS:
            spans[token] = []
        else:
            spans[list(spans)[-1]].append(token)
    assert list(spans) == list(SENTINELS[: len(spans)])
    source = example.source.tolist()
    assert [token for token in source if token in SENTINELS] == list(spans)
    return [token for read in source for token in spans.get(read, [read])]


@given(windows, generators)
def test_causal_asks_for_everything(window: np.ndarray, random: np.random.Generator) -> None:
    example = causal(window, MARKS, random)
    assert len(example.source) == 0 and example.target.tolist() == window.tolist()


@given(windows, generators)
def test_prefix_and_suffix_are_the_window(window: np.ndarray, random: np.random.Generator) -> None:
    example = prefix(window, MARKS, random)
    assert len(example.source) and len(example.target)
    assert [*example.source, *example.target] == window.tolist()


@given(windows, generators, st.sampled_from([(0.15, 3.0), (0.15, 8.0), (0.5, 3.0), (0.5, 64.0)]))
def test_span_corruption_loses_nothing(
    window: np.ndarray, random: np.random.Generator, how: tuple[float, float]
) -> None:
    example = span(window, MARKS, random, *how)
    assert put_back(example) == window.tolist()
    dropped = sum(token not in SENTINELS for token in example.target[:-1].tolist())
    assert dropped == min(max(round(len(window) * how[0]), 1), len(window) - 1)


def test_spans_have_the_stated_mean_length_and_start_anywhere() -> None:
    random, window = np.random.default_rng(0), np.arange(3, 403)
    examples = [span(window, MARKS, random) for _ in range(200)]
    spans = [sum(token in SENTINELS for token in example.target.tolist()) for example in examples]
    assert set(spans) == {20}  # 60 of 400 tokens in spans of 3
    ends = [example.source[-1] in SENTINELS for example in examples]
    assert not any(example.source[0] in SENTINELS for example in examples) and all(ends)


def test_no_more_spans_than_sentinels() -> None:
    few = Marks(1003, end=1, sentinels=SENTINELS[:5])
    example = span(np.arange(3, 403), few, np.random.default_rng(0))
    assert sum(token in SENTINELS for token in example.source.tolist()) == 5
    assert put_back(example) == list(range(3, 403))


def test_masked_rates_are_those_of_bert() -> None:
    random, window = np.random.default_rng(0), np.tile(np.arange(3, 803), 50)
    window[::10] = 1
    example = masked(window, MARKS, random)
    asked = example.target != IGNORED
    ordinary = window != 1
    assert not asked[~ordinary].any()
    assert asked[ordinary].mean() == pytest.approx(0.15, abs=0.01)
    assert (example.target[asked] == window[asked]).all() and (example.source[~asked] == window[~asked]).all()
    shown = example.source[asked]
    assert (shown == MARKS.mask).mean() == pytest.approx(0.8, abs=0.02)
    assert (shown == window[asked]).mean() == pytest.approx(0.1, abs=0.015)
    assert not np.isin(shown, list(MARKS.special - {MARKS.mask})).any()


@given(windows, generators)
def test_masked_always_asks_for_something_and_starts_with_the_start(
    window: np.ndarray, random: np.random.Generator
) -> None:
    marks = Marks(1003, start=0, mask=2, special=frozenset({0, 2}))
    example = masked(window, marks, random)
    assert example.source[0] == 0 and example.target[0] == IGNORED
    assert (example.target != IGNORED).any() and len(example.source) == len(window)


def test_mixture_is_ul2s_seven_denoisers_told_apart_by_the_mode() -> None:
    random, window = np.random.default_rng(0), np.arange(3, 403)
    counts = dict.fromkeys(MARKS.modes, 0)
    for _ in range(700):
        example = mixture(window, MARKS, random)
        mode = int(example.source[0])
        counts[mode] += 1
        body = Example(example.source[1:], example.target)
        if mode == 1001:
            assert [*body.source, *body.target] == window.tolist()
        else:
            assert put_back(body) == window.tolist()
        dropped = sum(3 <= token < 900 for token in example.target.tolist())
        assert mode != 1000 or dropped == 60
        assert mode != 1002 or dropped in (60, 200)
    shares = [counts[mode] / 700 for mode in MARKS.modes]
    assert shares == pytest.approx([2 / 7, 1 / 7, 4 / 7], abs=0.05)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_generator_decides_alone(name: str) -> None:
    window = np.arange(3, 203)
    first, second, other = (BY_NAME[name](window, MARKS, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.source.tolist() == second.source.tolist() and first.target.tolist() == second.target.tolist()
    assert name == "causal" or first.source.tolist() != other.source.tolist()
    assert window.tolist() == list(range(3, 203))
