"""An n-gram model with interpolated Kneser-Ney smoothing (Kneser and Ney 1995; Chen and Goodman 1999, eq. 26).

    p(w | h) = max(c(h w) − D, 0) / c(h ·) + D · N₁₊(h ·) / c(h ·) · p(w | h′)

h′ is h without its first token; below the highest order c counts the different tokens seen before h w; below order 1
every token of the vocabulary is equally likely, so every text has a probability. D = n₁/(n₁ + 2n₂) at each order.
Tokens are the base's, and counted as the base's are, so perplexities are of the same thing. Texts with labels are
classified by one such model for each label and the labels' frequencies (Peng and Schuurmans 2003).
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np

from graft.data.encoding import text_ids
from graft.data.rows import Row
from graft.data.task import Record
from graft.data.tasks.classification import Classification
from graft.data.tasks.language_modeling import LanguageModeling
from graft.tournament.entrant import Answerer, Arena, Entrant
from graft.tournament.entrants._linear import chosen

Gram = tuple[int, ...]


@dataclass(frozen=True)
class NGram(Entrant):
    """Kneser-Ney smoothed n-grams of the base's tokens: a language model, or one for each label."""

    order: Annotated[int, "tokens of an n-gram, the predicted one included"] = 3

    search: ClassVar = {"order": (3, 2, 5, 1)}
    seeded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "order")

    def refuses(self, arena: Arena) -> str | None:
        if isinstance(arena.task, LanguageModeling | Classification):
            return None
        return f"ngram predicts texts and labels, which is no answer to {arena.task.kind}."

    def fit(self, arena: Arena, rows: Sequence[Row], seed: int) -> Answerer:
        return (Texts if isinstance(arena.task, LanguageModeling) else Labels)(arena, rows, self.order)


class KneserNey:
    """Probabilities of a token after others. `texts`: tokens, of which the first is given and never predicted;
    `vocabulary`: how many tokens there are."""

    def __init__(self, texts: Iterable[Sequence[int]], order: int, vocabulary: int) -> None:
        self.order, self.vocabulary = order, vocabulary
        highest = Counter(gram for text in texts for gram in self.grams(text))
        self.levels: list[dict[Gram, Counter[int]]] = []
        self.totals: list[dict[Gram, int]] = []
        self.discounts: list[float] = []
        while True:
            level: dict[Gram, Counter[int]] = {}
            for (*context, token), count in highest.items():
                level.setdefault(tuple(context), Counter())[token] = count
            self.levels.insert(0, level)
            self.totals.insert(0, {context: counts.total() for context, counts in level.items()})
            self.discounts.insert(0, _discount(highest.values()))
            if len(self.levels) == order:
                return
            highest = Counter(gram[1:] for gram in highest)  # one for each different token before

    def grams(self, text: Sequence[int]) -> Iterable[Gram]:
        """The n-gram that ends in each predicted token; before the first token it is repeated."""
        padded = [*[text[0]] * (self.order - 2), *text]
        first = max(self.order - 1, 1)
        return (tuple(padded[at - self.order + 1 : at + 1]) for at in range(first, len(padded)))

    def probability(self, token: int, context: Gram) -> float:
        """p(token | context); of the context the last order − 1 tokens count."""
        chance = 1 / self.vocabulary
        for length, (level, totals, discount) in enumerate(zip(self.levels, self.totals, self.discounts, strict=True)):
            before = context[len(context) - length :]
            counts = level.get(before)
            if counts is None:  # then no longer context was seen either
                break
            kept = max(counts[token] - discount, 0) if token in counts else 0.0
            chance = (kept + discount * len(counts) * chance) / totals[before]
        return chance

    def loss(self, text: Sequence[int]) -> float:
        """Negative log-likelihood of all tokens of a text but the first, in nats."""
        return -math.fsum(math.log(self.probability(gram[-1], gram[:-1])) for gram in self.grams(text))

    @property
    def size(self) -> int:
        """How many n-grams of all orders have a count."""
        return sum(len(counts) for level in self.levels for counts in level.values())

    @property
    def stored(self) -> int:
        """Bytes: 4 for each token of a context, 8 for each count with its token."""
        return 8 * self.size + sum(4 * length * len(level) for length, level in enumerate(self.levels))


class Texts(Answerer):
    """The loss of each text, token by token, as the task measures a model's."""

    def __init__(self, arena: Arena, rows: Sequence[Row], order: int) -> None:
        self.arena = arena
        self.model = KneserNey(map(self._tokens, rows), order, len(arena.tokenizer))
        super().__init__(self.model.size, self.model.stored)

    def answer(self, rows: Sequence[Row]) -> list[Record]:
        records = []
        for item, row in enumerate(rows):
            tokens = self._tokens(row)
            size = len(row["text"].encode("utf-8", "surrogatepass"))
            records.append({"item": item, "loss": self.model.loss(tokens), "tokens": len(tokens) - 1, "bytes": size})
        return records

    def _tokens(self, row: Row) -> list[int]:
        """The whole row: the task's windows overlap by one token."""
        windows = self.arena.task.windows(row, self.arena.tokenizer)
        return [windows[0]["input_ids"][0], *(token for each in windows for token in each["input_ids"][1:])]


class Labels(Answerer):
    """The label under which a text and the label are likeliest together."""

    def __init__(self, arena: Arena, rows: Sequence[Row], order: int) -> None:
        assert isinstance(arena.task, Classification)
        self.labels, self.tokenizer = arena.task.labels, arena.tokenizer
        texts: dict[str, list[list[int]]] = {}
        for row in rows:
            texts.setdefault(row["label"], []).append(self._tokens(row))
        self.priors = {label: math.log(len(found) / len(rows)) for label, found in texts.items()}
        # Beside the tokenizer's tokens there are a mark before a text and one after it.
        self.models = {label: KneserNey(found, order, len(self.tokenizer) + 2) for label, found in texts.items()}
        parts = self.models.values()
        super().__init__(sum(each.size for each in parts) + len(self.models), sum(each.stored for each in parts))

    def answer(self, rows: Sequence[Row]) -> list[Record]:
        scores = np.zeros((len(rows), len(self.models)))
        for at, row in enumerate(rows):
            tokens = self._tokens(row)
            scores[at] = [self.priors[label] - model.loss(tokens) for label, model in self.models.items()]
        return chosen(self.labels, list(self.models), np.exp(scores - scores.max(axis=1, keepdims=True)))

    def _tokens(self, row: Row) -> list[int]:
        before, after = len(self.tokenizer), len(self.tokenizer) + 1
        texts = [text_ids(row[name], self.tokenizer) for name in ("text", "text_pair") if name in row]
        return [*(token for ids in texts for token in (before, *ids)), after]


def _discount(counts: Iterable[int]) -> float:
    """n₁/(n₁ + 2n₂) (Ney, Essen and Kneser 1994), kept off 0 and 1, where one order would decide alone."""
    times: Any = Counter(counts)
    return min(max(times[1] / max(times[1] + 2 * times[2], 1), 0.05), 0.95)
