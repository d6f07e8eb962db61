"""A linear model over features of the texts: logistic regression for classes, ridge regression for numbers."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression, Ridge

from graft.data.rows import Row
from graft.data.task import Record, Task
from graft.data.tasks.classification import Classification
from graft.data.tasks.regression import Regression
from graft.tournament.entrant import Answerer

Matrix = Any  # (rows, features), dense or sparse
KINDS = "classification, verbalized and regression"


def refused(task: Task, name: str) -> str | None:
    """Why a linear model over texts cannot do a task."""
    if isinstance(task, Classification | Regression):
        return None
    return f"{name} gives each text a label or a number, which is no answer to {task.kind}."


class Linear(Answerer):
    """Answers by a fitted linear model. `features` makes the matrix of rows; `kept`: bytes that it needs beside."""

    def __init__(self, task: Task, features: Callable[[Sequence[Row]], Matrix], rows: Sequence[Row], C: float,
                 kept: int) -> None:  # fmt: skip
        self.task, self.features = task, features
        found = features(rows)
        labels = [row["label"] for row in rows]
        if isinstance(task, Regression):
            self.model: Any = Ridge(alpha=1 / C).fit(found, labels)
        elif len(set(labels)) == 1:  # rows of one class teach nothing else
            self.model = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(rows), 1)), labels)
        else:
            self.model = LogisticRegression(C=C, max_iter=2000).fit(found, labels)
        fitted = [] if isinstance(self.model, DummyClassifier) else [self.model.coef_, self.model.intercept_]
        sizes = sum(np.size(part) for part in fitted)
        super().__init__(trainable=sizes, stored=sizes * 8 + kept)

    def answer(self, rows: Sequence[Row]) -> list[Record]:
        found = self.features(rows)
        if isinstance(self.task, Classification):
            return chosen(self.task.labels, list(self.model.classes_), self.model.predict_proba(found))
        return [{"item": item, "output": float(value)} for item, value in enumerate(self.model.predict(found))]


def chosen(labels: Sequence[str], classes: Sequence[str], chances: Any) -> list[Record]:
    """Records from probabilities (rows, classes); labels that no row taught have none."""
    place = [labels.index(label) for label in classes]
    records = []
    for item, row in enumerate(np.asarray(chances, dtype=float)):
        whole = np.zeros(len(labels))
        whole[place] = row / row.sum()
        records.append({"item": item, "output": labels[int(whole.argmax())], "probabilities": whole.tolist()})
    return records


def of_rows(rows: Sequence[Row], features: Callable[[list[str]], Matrix]) -> Matrix:
    """One text's features, or of a pair (u, v, |u − v|, u∘v), as in Conneau et al. 2017 (arXiv 1705.02364)."""
    first = features([row["text"] for row in rows])
    if "text_pair" not in rows[0]:
        return first
    second = features([row["text_pair"] for row in rows])
    if sparse.issparse(first):
        return sparse.hstack([first, second, abs(first - second), first.multiply(second)]).tocsr()
    return np.hstack([first, second, np.abs(first - second), first * second])
