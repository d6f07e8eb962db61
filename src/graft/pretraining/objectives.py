"""What a model is asked to predict: causal, prefix, masked, span corruption, and their unified mixture.

An objective turns a window of token ids into one Example. Every random choice comes from the generator it is given, so
an example depends on the seed, the step and the row alone.

    causal    every token from those before it
    prefix    the second part from the first, which is read in both directions     Raffel et al. 2020, section 3.2
    masked    15 % of the tokens, in place; 80/10/10                               Devlin et al. 2019, section 3.1
    span      dropped spans, each marked by a sentinel                             Raffel et al. 2020, section 3.1.4
    mixture   span, prefix and extreme spans, told apart by a mode token           Tay et al. 2022 (UL2), table 1
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

Objective = Literal["causal", "prefix", "masked", "span", "mixture"]
OBJECTIVES: tuple[Objective, ...] = ("causal", "prefix", "masked", "span", "mixture")
IGNORED = -100


@dataclass(frozen=True)
class Example:
    """`source` is read, `target` predicted. For masked models the target lies over the source, else IGNORED."""

    source: np.ndarray
    target: np.ndarray


@dataclass(frozen=True)
class Marks:
    """The special ids an objective may use; empty or None where the tokenizer has none."""

    vocabulary: int
    start: int | None = None
    end: int | None = None
    mask: int | None = None
    special: frozenset[int] = frozenset()
    sentinels: tuple[int, ...] = ()
    modes: tuple[int, ...] = ()


def causal(window: np.ndarray, marks: Marks, random: np.random.Generator) -> Example:
    """Nothing is read beforehand; the whole window is predicted."""
    return Example(window[:0], window)


def prefix(window: np.ndarray, marks: Marks, random: np.random.Generator) -> Example:
    """The window cut at a point drawn evenly, so that either part has at least one token."""
    cut = int(random.integers(1, len(window)))
    return Example(window[:cut], window[cut:])


def masked(window: np.ndarray, marks: Marks, random: np.random.Generator, rate: float = 0.15) -> Example:
    """`rate` of the ordinary tokens asked for: 80 % shown as the mask, 10 % as a random token, 10 % as they are.

    Where there is a start token ([CLS]) it stands first, in the place of the window's last token.
    """
    if marks.start is not None:
        window = np.concatenate([[marks.start], window[:-1]]).astype(window.dtype)
    ordinary = ~np.isin(window, list(marks.special))
    chosen = ordinary & (random.random(len(window)) < rate)
    if not chosen.any() and ordinary.any():
        chosen[random.choice(np.flatnonzero(ordinary))] = True
    shown, fate = window.copy(), random.random(len(window))
    shown[chosen & (fate < 0.8)] = marks.mask
    swapped = chosen & (fate >= 0.8) & (fate < 0.9)
    allowed = np.setdiff1d(np.arange(marks.vocabulary), list(marks.special))
    shown[swapped] = random.choice(allowed, int(swapped.sum()))
    return Example(shown, np.where(chosen, window, IGNORED))


def span(
    window: np.ndarray, marks: Marks, random: np.random.Generator, rate: float = 0.15, length: float = 3.0
) -> Example:
    """Spans of mean `length` covering `rate` of the window are dropped, each replaced by the next sentinel.

    The target is each sentinel followed by what it stands for, then the end token. No more spans than sentinels.
    """
    size = len(window)
    noise = min(max(round(size * rate), 1), size - 1)
    spans = max(1, min(round(noise / length), noise, size - noise, len(marks.sentinels)))
    kept, dropped = _parts(size - noise, spans, random), _parts(noise, spans, random)
    source, target, at = [], [], 0
    for number in range(spans):
        source += [*window[at : at + kept[number]], marks.sentinels[number]]
        at += kept[number]
        target += [marks.sentinels[number], *window[at : at + dropped[number]]]
        at += dropped[number]
    target += [] if marks.end is None else [marks.end]
    return Example(np.array(source, window.dtype), np.array(target, window.dtype))


def mixture(window: np.ndarray, marks: Marks, random: np.random.Generator) -> Example:
    """One of UL2's seven denoisers, drawn evenly, with its mode token in front of the source.

    R: spans of 3 or 8 at 15 %. S: prefix. X: spans of 3 or 8 at 50 %, of 64 at 15 % or 50 %.
    """
    denoisers = (
        (0, 0.15, 3.0),
        (0, 0.15, 8.0),
        (1, 0.0, 0.0),
        (2, 0.5, 3.0),
        (2, 0.5, 8.0),
        (2, 0.15, 64.0),
        (2, 0.5, 64.0),
    )
    mode, rate, length = denoisers[int(random.integers(len(denoisers)))]
    example = prefix(window, marks, random) if mode == 1 else span(window, marks, random, rate, length)
    return Example(np.concatenate([[marks.modes[mode]], example.source]).astype(window.dtype), example.target)


BY_NAME: dict[Objective, Callable[[np.ndarray, Marks, np.random.Generator], Example]] = {
    "causal": causal,
    "prefix": prefix,
    "masked": masked,
    "span": span,
    "mixture": mixture,
}


def _parts(total: int, count: int, random: np.random.Generator) -> np.ndarray:
    """`total` cut into `count` parts of at least one, every way equally likely."""
    cuts = np.sort(random.choice(np.arange(1, total), count - 1, replace=False))
    return np.diff(np.concatenate([[0], cuts, [total]])).astype(int)
