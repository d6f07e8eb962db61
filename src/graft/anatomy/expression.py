"""The language of site expressions, parsed once and knowing no model.

    expression = clause, more clauses after ";" or ","
    clause     = [where ":"] words ["@" layers]
    where      = "encoder", "decoder", another stack's name, "self", "cross"; several together: "decoder cross"
    words      = roles, "all-linear", globs over module paths, exact module paths, names of sites
    layers     = "top 4" | "bottom 2" | "8-11" | "0 2 8-11"

Layers alone, as in "@ top 2", mean the layers themselves.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from graft.errors import BadInput

TOKEN = re.compile(r"[;,:@]|[^\s;,:@]+")
NUMBERS = re.compile(r"\d+(-\d+)?")


@dataclass(frozen=True)
class Word:
    """One word of an expression and where it starts."""

    text: str
    start: int


@dataclass(frozen=True)
class Layers:
    """Which layers: the top or bottom so many, or closed ranges."""

    kind: Literal["top", "bottom", "ranges"]
    count: int = 0
    ranges: tuple[tuple[int, int], ...] = ()
    start: int = 0

    def of(self, total: int) -> tuple[int, ...] | None:
        """The layers meant in a stack of `total`, in order; None where it has no such layers."""
        if self.kind == "ranges":
            if any(last >= total for _, last in self.ranges):
                return None
            return tuple(sorted({layer for first, last in self.ranges for layer in range(first, last + 1)}))
        if self.count > total:
            return None
        return tuple(range(total - self.count, total) if self.kind == "top" else range(self.count))


@dataclass(frozen=True)
class Clause:
    """One clause: words, restricted to stacks, to self- or cross-attention, and to layers, where said."""

    where: tuple[Word, ...]
    words: tuple[Word, ...]
    layers: Layers | None


@functools.lru_cache(maxsize=512)
def parse(expression: str) -> tuple[Clause, ...]:
    """The clauses of an expression. Raises BadInput with a marker under the place that cannot be read."""
    tokens = [Word(match.group(), match.start()) for match in TOKEN.finditer(expression)]
    clauses, rest = [], tokens
    while rest:
        length = _clause_length(rest)
        if length:
            clauses.append(_clause(expression, rest[:length]))
        rest = rest[length + 1 :]
    if not clauses:
        raise fault(expression, 0, "the site expression is empty", 'Write roles, such as "q v" or "all-linear".')
    return tuple(clauses)


def fault(expression: str, at: int, what: str, remedy: str) -> BadInput:
    """The error for something wrong at one place of an expression."""
    return BadInput(f"{what}:\n    {expression}\n    {' ' * at}^\n{remedy}")


def _clause_length(tokens: Sequence[Word]) -> int:
    """The tokens up to the next separator; a comma between numbers after "@" separates layers, not clauses."""
    after_at = False
    for i, token in enumerate(tokens):
        after_at = after_at or token.text == "@"
        number_next = i + 1 < len(tokens) and NUMBERS.fullmatch(tokens[i + 1].text)
        if token.text == ";" or (token.text == "," and not (after_at and number_next)):
            return i
    return len(tokens)


def _clause(expression: str, tokens: Sequence[Word]) -> Clause:
    colons = [i for i, token in enumerate(tokens) if token.text == ":"]
    if len(colons) > 1:
        raise fault(expression, tokens[colons[1]].start, "a clause has one ':'", "Separate clauses with ';'.")
    where, rest = (tokens[: colons[0]], tokens[colons[0] + 1 :]) if colons else ((), tokens)
    if colons and not where:
        raise fault(expression, tokens[0].start, "nothing before ':'", 'Write a stack, "self" or "cross" before it.')
    ats = [i for i, token in enumerate(rest) if token.text == "@"]
    if len(ats) > 1:
        raise fault(expression, rest[ats[1]].start, "a clause has one '@'", "Separate clauses with ';'.")
    words, layers = (rest[: ats[0]], _layers(expression, rest[ats[0] :])) if ats else (rest, None)
    if not words and layers is None:
        raise fault(expression, tokens[-1].start, "no role after ':'", 'Write roles, such as "q v".')
    return Clause(tuple(where), tuple(words) or (Word("layer", tokens[-1].start),), layers)


def _layers(expression: str, tokens: Sequence[Word]) -> Layers:
    """The layers after "@"; `tokens` start with the "@" itself."""
    at, rest = tokens[0].start, [token for token in tokens[1:] if token.text != ","]
    remedy = 'Write "@ top 4", "@ bottom 2", "@ 8-11" or "@ 0 2 8-11".'
    if not rest:
        raise fault(expression, at, "no layers after '@'", remedy)
    kind = rest[0].text
    if kind in ("top", "bottom"):
        if len(rest) != 2 or not rest[1].text.isdigit() or int(rest[1].text) < 1:
            raise fault(expression, rest[-1].start, f"'{kind}' takes one number of layers, 1 or more", remedy)
        return Layers("top" if kind == "top" else "bottom", count=int(rest[1].text), start=at)
    ranges = []
    for token in rest:
        if not NUMBERS.fullmatch(token.text):
            raise fault(expression, token.start, f"{token.text!r} is no layer", remedy)
        first, _, last = token.text.partition("-")
        if last and int(last) < int(first):
            raise fault(expression, token.start, f"the range {token.text} runs backwards", f"Write {last}-{first}.")
        ranges.append((int(first), int(last or first)))
    return Layers("ranges", ranges=tuple(ranges), start=at)
