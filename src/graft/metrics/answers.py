"""Short answers, as SQuAD scores them (Rajpurkar et al. 2016, arXiv 1606.05250): exact match and token F1, in percent.

Output and references are lowercased and lose punctuation, the articles a, an, the, and extra spaces. The best of
several references counts. An empty list of references means that no answer is the right answer (SQuAD 2.0).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from graft.metrics import _record
from graft.metrics._metric import Array, Mean, Record, scored

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, kw_only=True)
class ExactMatch(Mean):
    """The share of items whose normalized output is one of the normalized references."""

    right_or_wrong: bool = True
    proportion: bool = True
    tolerance: float = 0.0

    def statistics(self, records: Sequence[Record]) -> Array:
        outputs = _record.read(self.name, records, "output", _record.text)
        references = _record.read(self.name, records, "reference", _record.answers)
        pairs = zip(outputs, references, strict=True)
        return scored([normalize(output) in {normalize(answer) for answer in accepted} for output, accepted in pairs])


@dataclass(frozen=True, kw_only=True)
class TokenF1(Mean):
    """The mean of 2·shared / (tokens of the output + tokens of the reference), over bags of normalized words."""

    def statistics(self, records: Sequence[Record]) -> Array:
        outputs = _record.read(self.name, records, "output", _record.text)
        references = _record.read(self.name, records, "reference", _record.answers)
        pairs = zip(outputs, references, strict=True)
        return scored([max(_token_f1(output, answer) for answer in accepted) for output, accepted in pairs])


def normalize(answer: str) -> str:
    """Lowercase, without punctuation and articles, words parted by single spaces; the order is SQuAD's."""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def _token_f1(output: str, answer: str) -> float:
    given, wanted = normalize(output).split(), normalize(answer).split()
    if not given or not wanted:
        return float(given == wanted)
    return 2 * (Counter(given) & Counter(wanted)).total() / (len(given) + len(wanted))


METRICS = (
    ExactMatch(name="exact_match", title="exact match"),
    TokenF1(name="token_f1", title="token F1"),
)
