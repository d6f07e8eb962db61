"""The mean of word vectors, and a linear model (Wieting et al. 2016, arXiv 1511.08198; Conneau and Kiela 2018).

By default the vectors are the rows of the base's own token embedding; `vectors` names a text file in the format of
GloVe (Pennington et al. 2014): a word and its numbers on each line. Features have mean 0 and variance 1 on train rows.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from graft.data.encoding import text_ids
from graft.data.rows import Row
from graft.errors import BadInput
from graft.tournament.entrant import Answerer, Arena, Entrant
from graft.tournament.entrants._linear import Linear, of_rows, refused

WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class WordVectors(Entrant):
    """Logistic regression on the mean of a text's word vectors: the base's token embeddings, or a GloVe file."""

    C: Annotated[float, "inverse strength of the L2 penalty"] = 1.0
    vectors: Annotated[str | None, "file of word vectors in GloVe's format; without, the base's token embeddings"] = (
        None
    )

    search: ClassVar = {"C": (1.0, 0.1, 10.0, 0.01)}
    seeded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check(self.C > 0, "C", "must be above 0", "Try 1.")

    def refuses(self, arena: Arena) -> str | None:
        return refused(arena.task, self.name)

    def fit(self, arena: Arena, rows: Sequence[Row], seed: int) -> Answerer:
        mean = GloveFile(Path(self.vectors)) if self.vectors is not None else Embeddings(arena.model, arena.tokenizer)
        scaler = StandardScaler().fit(of_rows(rows, mean.of))
        kept = scaler.mean_.nbytes + scaler.scale_.nbytes
        return Linear(arena.task, lambda asked: scaler.transform(of_rows(asked, mean.of)), rows, self.C, kept)


class Embeddings:
    """Means of a base's input embeddings; a text without tokens is 0."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.table, self.tokenizer = model.get_input_embeddings().weight.detach(), tokenizer

    def of(self, texts: Sequence[str]) -> Any:
        """(texts, width) means."""
        means = np.zeros((len(texts), self.table.shape[1]))
        for number, text in enumerate(texts):
            if ids := text_ids(text, self.tokenizer):
                found = self.table[torch.tensor(ids, device=self.table.device)]
                means[number] = found.double().mean(dim=0).cpu().numpy()
        return means


class GloveFile:
    """Means of the vectors of a text file. Words are looked up as they stand, else in lower case; the file is read
    again when words are asked for that were not looked for before, so that it need not fit into memory."""

    def __init__(self, path: Path) -> None:
        self.path, self.known, self.looked_for = path, dict[str, np.ndarray](), set[str]()
        self.width = 0

    def of(self, texts: Sequence[str]) -> Any:
        """(texts, width) means over the words that the file has; a text without any is 0."""
        words = [WORD.findall(text) for text in texts]
        self._look({form for text in words for word in text for form in (word, word.lower())})
        means = np.zeros((len(texts), self.width))
        for number, text in enumerate(words):
            found = [vector for word in text if (vector := _vector(self.known, word)) is not None]
            if found:
                means[number] = np.mean(found, axis=0, dtype=np.float64)
        return means

    def _look(self, words: set[str]) -> None:
        new = words - self.looked_for
        if not new and self.width:
            return
        try:
            with self.path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    self._read(line, number, new)
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"vectors: {self.path} cannot be read as text: {error}.") from error
        if not self.width:
            raise BadInput(f"vectors: {self.path} holds no word vectors; a line is a word and its numbers.")
        self.looked_for |= new

    def _read(self, line: str, number: int, new: set[str]) -> None:
        word, _, rest = line.rstrip().partition(" ")
        width = rest.count(" ") + 1
        if number == 1 and width == 1:
            return  # word2vec's text format begins with the size of the table
        self.width = self.width or width
        # Words with spaces in them (there are some in GloVe 840B) are never asked for.
        if word not in new or width > self.width:
            return
        try:
            vector = np.array(rest.split(" "), dtype=np.float32)
        except ValueError as error:
            raise BadInput(f"vectors: {self.path}:{number} is not a word and its numbers: {error}.") from error
        if len(vector) != self.width:
            raise BadInput(f"vectors: {self.path}:{number} has {len(vector)} numbers, lines before had {self.width}.")
        self.known[word] = vector


def _vector(known: Mapping[str, np.ndarray], word: str) -> np.ndarray | None:
    return known.get(word, known.get(word.lower()))
