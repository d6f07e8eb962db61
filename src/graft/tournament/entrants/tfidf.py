"""TF-IDF (Spärck Jones 1972) of words or characters, and a linear model on it (Joachims 1998; Fan et al. 2008).

Counts enter as 1 + log(count), weigh by log((1 + n)/(1 + df)) + 1, and every text has length 1. Numbers are predicted
by ridge regression with penalty 1/C.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from sklearn.feature_extraction.text import TfidfVectorizer

from graft.data.rows import Row
from graft.tournament.entrant import Answerer, Arena, Entrant
from graft.tournament.entrants._linear import Linear, of_rows, refused

CHARACTERS = (2, 5)


@dataclass(frozen=True)
class TfIdf(Entrant):
    """Logistic regression on TF-IDF of words and pairs of words. No neural network, no base."""

    C: Annotated[float, "inverse strength of the L2 penalty"] = 1.0
    analyzer: Annotated[Literal["word", "char"], "words, or 2 to 5 characters within words"] = "word"
    ngrams: Annotated[int, "longest run of words that is a feature"] = 2

    search: ClassVar = {"C": (1.0, 10.0, 100.0, 0.1)}
    seeded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.C > 0, "C", "must be above 0", "Try 1.")
        self.at_least(1, "ngrams")

    def refuses(self, arena: Arena) -> str | None:
        return refused(arena.task, self.name)

    def fit(self, arena: Arena, rows: Sequence[Row], seed: int) -> Answerer:
        if self.analyzer == "char":
            kind: dict[str, Any] = {"analyzer": "char_wb", "ngram_range": CHARACTERS}
        else:  # single letters and digits are words too
            kind = {"analyzer": "word", "ngram_range": (1, self.ngrams), "token_pattern": r"\b\w+\b"}
        counter = TfidfVectorizer(sublinear_tf=True, **kind)
        counter.fit([row[name] for row in rows for name in ("text", "text_pair") if name in row])
        kept = sum(len(word.encode()) + 1 + 8 for word in counter.vocabulary_)
        return Linear(arena.task, lambda asked: of_rows(asked, counter.transform), rows, self.C, kept)
