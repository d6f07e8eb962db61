"""Classification: accuracy, F1, Matthews correlation, expected calibration error; all in percent.

Labels are strings or whole numbers. An output of None (an answer that is no label) is wrong and is no class of its own.
Accuracy, F1 and Matthews equal scikit-learn's times 100; the calibration error equals torchmetrics'.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from graft.metrics import _record
from graft.metrics._metric import Array, Mean, Metric, Record, Summed, rows, scored

Label = str | int
NO_LABEL = -1.0


@dataclass(frozen=True, kw_only=True)
class Accuracy(Mean):
    """The share of items whose output is the reference."""

    right_or_wrong: bool = True
    proportion: bool = True
    tolerance: float = 0.0

    def statistics(self, records: Sequence[Record]) -> Array:
        outputs, references = _labels(self.name, records)
        return scored([output == reference for output, reference in zip(outputs, references, strict=True)])


@dataclass(frozen=True, kw_only=True)
class Confusion(Metric):
    """A score of the confusion matrix. A row is (code of the output, code of the reference)."""

    right_or_wrong: bool = True
    tolerance: float = 0.0

    def statistics(self, records: Sequence[Record]) -> Array:
        outputs, references = _labels(self.name, records)
        return rows(
            [(_code(output), _code(reference)) for output, reference in zip(outputs, references, strict=True)], 2
        )

    def items(self, statistics: Array) -> Array | None:
        return np.where(statistics[:, 0] == statistics[:, 1], 100.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class MacroF1(Confusion):
    """The mean over classes of 2·TP / (predicted + true); a class is a label that is predicted or true somewhere."""

    def _weighted(self, statistics: Array, weights: Array) -> Array:
        right, predicted, true = _counts(statistics, weights)
        present = predicted + true > 0
        scores = np.where(present, 2 * right / np.where(present, predicted + true, 1), 0)
        return np.asarray(100 * scores.sum(axis=1) / present.sum(axis=1))

    def why(self, statistics: Array) -> str:
        return "no label is predicted or true"

    def narrowed(self, argument: str) -> Metric:
        return LabelF1(name=f"{self.name}:{argument}", title=f"F1 of {argument}", label=argument)


@dataclass(frozen=True, kw_only=True)
class LabelF1(Summed):
    """The F1 of one label (binary F1 with that label as the positive one). A row is (both, predicted, true)."""

    label: str
    right_or_wrong: bool = True
    tolerance: float = 0.0

    def statistics(self, records: Sequence[Record]) -> Array:
        outputs, references = _labels(self.name, records)
        predicted = [output is not None and str(output) == self.label for output in outputs]
        true = [str(reference) == self.label for reference in references]
        return rows([(p and t, p, t) for p, t in zip(predicted, true, strict=True)], 3)

    def finish(self, sums: Array) -> Array:
        return 200 * sums[:, 0] / (sums[:, 1] + sums[:, 2])

    def items(self, statistics: Array) -> Array | None:
        # Right in the eyes of this label: called so exactly when it is so.
        return np.where(statistics[:, 1] == statistics[:, 2], 100.0, 0.0)

    def why(self, statistics: Array) -> str:
        return f"the label {self.label!r} is neither predicted nor true for any item"


@dataclass(frozen=True, kw_only=True)
class Matthews(Confusion):
    """Matthews correlation for any number of classes (Gorodkin 2004): (c·s − Σ p·t) / √((s² − Σp²)(s² − Σt²)).

    References of a single class leave it undefined. Constant outputs against several classes carry no information and
    score 0, as in scikit-learn, so that an untrained model can be compared with.
    """

    def _weighted(self, statistics: Array, weights: Array) -> Array:
        right, predicted, true = _counts(statistics, weights)
        total = weights.sum(axis=1)
        # An output that is no label is a column of its own here, as the share of predictions must sum to one.
        missing = total - predicted.sum(axis=1)
        chance = total**2 - (predicted**2).sum(axis=1) - missing**2
        spread = total**2 - (true**2).sum(axis=1)
        covariance = right.sum(axis=1) * total - (predicted * true).sum(axis=1)
        score = np.where(chance > 0, covariance / np.sqrt(np.where(chance > 0, chance, 1) * spread), 0)
        return np.asarray(100 * np.where(spread > 0, score, np.nan))

    def why(self, statistics: Array) -> str:
        return "every reference is the same label"


@dataclass(frozen=True, kw_only=True)
class CalibrationError(Summed):
    """Expected calibration error Σ |B|/n · |accuracy(B) − confidence(B)| over equal-width bins [i/b, (i+1)/b).

    Guo et al. 2017, arXiv 1706.04599. Confidence is the largest of the record's "probabilities"; the output is right
    when it equals the reference. Equal to torchmetrics' `MulticlassCalibrationError(norm="l1")`. A row holds
    (right − confidence) in its bin's column, then 1.
    """

    bins: int = 15
    higher_is_better: bool = False

    def statistics(self, records: Sequence[Record]) -> Array:
        outputs, references = _labels(self.name, records)
        found = _record.read(self.name, records, "probabilities", _record.probabilities)
        confidence = np.array([max(entry) for entry in found], dtype=np.float64)
        right = np.array(
            [output == reference for output, reference in zip(outputs, references, strict=True)], dtype=float
        )
        # The last bin holds only a confidence of exactly 1, as in torchmetrics; NaN stays NaN in its row.
        edges = np.linspace(0, 1, self.bins + 1)
        place = np.searchsorted(edges, np.where(np.isnan(confidence), 0, confidence), side="right") - 1
        table = np.zeros((len(records), self.bins + 2))
        table[np.arange(len(records)), place] = right - confidence
        table[:, -1] = 1
        return table

    def finish(self, sums: Array) -> Array:
        return np.asarray(100 * np.abs(sums[:, :-1]).sum(axis=1) / sums[:, -1])

    def items(self, statistics: Array) -> Array | None:
        return None

    def why(self, statistics: Array) -> str:
        return "no item has any weight"


def _labels(metric: str, records: Sequence[Record]) -> tuple[list[Label | None], list[Label]]:
    outputs = _record.read(metric, records, "output", _record.label_or_none)
    references = _record.read(metric, records, "reference", _record.label)
    kinds = {type(output) for output in outputs if output is not None}, {type(reference) for reference in references}
    if all(kinds) and not kinds[0] & kinds[1]:
        # 1 is never equal to "1": without this the score is a silent 0.
        seen = " and ".join(f"{side[0]!r}" for side in ([o for o in outputs if o is not None], references))
        _record.complain(
            metric, [f"outputs and references are of different kinds, such as {seen}; use one kind for both"]
        )
    return outputs, references


def _code(label: Label | None) -> float:
    """A number for a label that is the same in every test set and fits a float exactly (48 bits of a hash)."""
    if label is None:
        return NO_LABEL
    digest = hashlib.blake2b(f"{type(label).__name__}:{label}".encode(), digest_size=6).digest()
    return float(int.from_bytes(digest, "big"))


def _counts(statistics: Array, weights: Array) -> tuple[Array, Array, Array]:
    """(r, classes) weights of items right, predicted and true, per class."""
    codes, place = np.unique(statistics, return_inverse=True)
    outputs, references = place.reshape(statistics.shape).T
    right = np.where(outputs == references, references, -1)
    outputs = np.where(statistics[:, 0] == NO_LABEL, -1, outputs)

    def per_class(classes: np.ndarray) -> Array:
        kept = np.flatnonzero(classes >= 0)
        member = sparse.csr_array((np.ones(len(kept)), (classes[kept], kept)), shape=(len(codes), len(statistics)))
        return np.asarray((member @ weights.T).T)

    return per_class(right), per_class(outputs), per_class(references)


METRICS = (
    Accuracy(name="accuracy", title="accuracy"),
    MacroF1(name="f1", title="F1 (macro)"),
    Matthews(name="matthews", title="Matthews correlation", bounds=(-100.0, 100.0)),
    CalibrationError(name="calibration_error", title="expected calibration error (15 bins)"),
)
