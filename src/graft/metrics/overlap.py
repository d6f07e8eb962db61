"""Overlap with reference texts: ROUGE (rouge-score with its stemmer), BLEU, chrF and TER (sacrebleu), in percent.

Each item has one reference or several. ROUGE takes the reference with the best F; the others do as sacrebleu does.
ROUGE sees only a to z and 0 to 9: for text in another script use chrF.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from graft.metrics import _record
from graft.metrics._metric import Array, Mean, Record, Summed, rows

ORDER = 4  # of BLEU's n-grams
CHARACTERS, BETA = 6, 2  # chrF's n-grams, and how much more recall weighs than precision


@dataclass(frozen=True, kw_only=True)
class Rouge(Mean):
    """The mean F of the ROUGE of that name; rougeLsum parts sentences at newlines. A row is (F, 1, reference words)."""

    def statistics(self, records: Sequence[Record]) -> Array:
        from rouge_score.rouge_scorer import RougeScorer

        words = _Words()
        scorer = RougeScorer([self.name], tokenizer=words)
        outputs, references = _texts(self.name, records)
        table = []
        for output, wanted in zip(outputs, references, strict=True):
            score = scorer.score_multi(wanted, output)[self.name].fmeasure
            table.append((score, 1, sum(len(words.tokenize(text)) for text in wanted)))
        return rows(table, 3)

    def finish(self, sums: Array) -> Array:
        return np.where(sums[:, 2] > 0, 100 * sums[:, 0] / sums[:, 1], np.nan)

    def why(self, statistics: Array) -> str:
        return "no reference has a word of the letters a to z or digits, which is all that ROUGE sees; use chrf"


@dataclass(frozen=True, kw_only=True)
class Bleu(Summed):
    """BLEU-4 by sacrebleu's defaults: tokenizer 13a, exponential smoothing.

    A row is (length, reference length, n-grams that match for n = 1 to 4, n-grams for n = 1 to 4).
    """

    def statistics(self, records: Sequence[Record]) -> Array:
        from sacrebleu.metrics.bleu import BLEU

        scorer = BLEU(effective_order=True)  # changes the sentence's score, which is not used, and not its counts
        outputs, references = _texts(self.name, records)
        table = []
        for output, wanted in zip(outputs, references, strict=True):
            score = scorer.sentence_score(output, wanted)
            table.append((score.sys_len, score.ref_len, *score.counts, *score.totals))
        return rows(table, 2 + 2 * ORDER)

    def finish(self, sums: Array) -> Array:
        return np.where(sums[:, 1] > 0, _bleu(sums, effective=False), np.nan)

    def items(self, statistics: Array) -> Array | None:
        with np.errstate(all="ignore"):
            return np.where(statistics[:, 1] > 0, _bleu(statistics, effective=True), np.nan)

    def why(self, statistics: Array) -> str:
        return "every reference is empty"


@dataclass(frozen=True, kw_only=True)
class Chrf(Summed):
    """chrF2 (Popović 2015): sacrebleu's defaults. A row is six times (output's, reference's, shared) n-grams."""

    def statistics(self, records: Sequence[Record]) -> Array:
        from sacrebleu.metrics.helpers import extract_all_char_ngrams

        outputs, references = _texts(self.name, records)
        table = []
        for output, wanted in zip(outputs, references, strict=True):
            given = extract_all_char_ngrams(output, CHARACTERS)
            choices = []
            for text in wanted:
                pairs = zip(given, extract_all_char_ngrams(text, CHARACTERS), strict=True)
                # n-grams of an order that the reference is too short for are not held against the output
                choices.append(
                    [count for g, w in pairs for count in (g.total() if w else 0, w.total(), (g & w).total())]
                )
            table.append(choices[int(np.argmax(_chrf(np.array(choices, dtype=np.float64))))])
        return rows(table, 3 * CHARACTERS)

    def finish(self, sums: Array) -> Array:
        return np.where(sums[:, 1] > 0, _chrf(sums), np.nan)

    def why(self, statistics: Array) -> str:
        return "every reference is empty"


@dataclass(frozen=True, kw_only=True)
class TranslationEditRate(Summed):
    """Edits, a moved phrase being one, per reference word (Snover et al. 2006).

    A row is (least edits over the references, their mean length).
    """

    higher_is_better: bool = False

    def statistics(self, records: Sequence[Record]) -> Array:
        from sacrebleu.metrics.ter import TER

        scorer = TER()
        outputs, references = _texts(self.name, records)
        scores = [scorer.sentence_score(output, wanted) for output, wanted in zip(outputs, references, strict=True)]
        return rows([(score.num_edits, score.ref_length) for score in scores], 2)

    def finish(self, sums: Array) -> Array:
        return 100 * sums[:, 0] / np.where(sums[:, 1] > 0, sums[:, 1], np.nan)

    def why(self, statistics: Array) -> str:
        return "every reference is empty"


class _Words:
    """rouge-score's own tokenizer, remembering: a reference is cut and stemmed once for all scores of a run."""

    def tokenize(self, text: str) -> list[str]:
        return list(_stemmed(text))


@lru_cache(maxsize=20_000)
def _stemmed(text: str) -> tuple[str, ...]:
    return tuple(_tokenizer().tokenize(text))


@lru_cache(maxsize=1)
def _tokenizer():  # type: ignore[no-untyped-def]
    from rouge_score.tokenizers import DefaultTokenizer

    return DefaultTokenizer(use_stemmer=True)


def _texts(metric: str, records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    outputs = _record.read(metric, records, "output", _record.text)
    return outputs, _record.read(metric, records, "reference", _record.texts)


def _bleu(sums: Array, effective: bool) -> Array:
    """(r,) BLEU from (r, 10) sums, as sacrebleu's compute_bleu; `effective` ends at the longest n-gram there is."""
    length, wanted = sums[:, 0], sums[:, 1]
    right, total = sums[:, 2 : 2 + ORDER], sums[:, 2 + ORDER :]
    with np.errstate(all="ignore"):
        brevity = np.where(length < wanted, np.where(length > 0, np.exp(1 - wanted / length), 0.0), 1.0)
        # each order without a match halves the count that it is given, NIST's smoothing
        smoothed = np.where(right > 0, right, 0.5 ** np.cumsum(right == 0, axis=1))
        logs = np.log(smoothed / total)
    counted = total > 0
    orders = counted.sum(axis=1) if effective else np.full(len(sums), ORDER)
    mean = np.where(counted, logs, 0.0 if effective else -np.inf).sum(axis=1) / np.maximum(orders, 1)
    return np.where(right.any(axis=1), 100 * brevity * np.exp(mean), 0.0)


def _chrf(sums: Array) -> Array:
    """(r,) chrF from (r, 18) sums: F of the means of precision and recall over the orders that both sides have."""
    given, wanted, shared = sums[:, 0::3], sums[:, 1::3], sums[:, 2::3]
    usable = (given > 0) & (wanted > 0)
    orders = np.maximum(usable.sum(axis=1), 1)
    precision = np.where(usable, shared / np.where(usable, given, 1), 0).sum(axis=1) / orders
    recall = np.where(usable, shared / np.where(usable, wanted, 1), 0).sum(axis=1) / orders
    below = BETA**2 * precision + recall
    return np.asarray(100 * (1 + BETA**2) * precision * recall / np.where(below > 0, below, 1))


METRICS = (
    Rouge(name="rouge1", title="ROUGE-1"),
    Rouge(name="rouge2", title="ROUGE-2"),
    Rouge(name="rougeL", title="ROUGE-L"),
    Rouge(name="rougeLsum", title="ROUGE-Lsum"),
    Bleu(name="bleu", title="BLEU"),
    Chrf(name="chrf", title="chrF"),
    TranslationEditRate(name="ter", title="TER", bounds=(0.0, math.inf)),
)
