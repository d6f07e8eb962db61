"""Rows that say nearly the same: word shingles, MinHash to find candidates, exact Jaccard similarity to decide.

Broder, "On the resemblance and containment of documents" (1997). 32 bands of 4 rows miss a pair of similarity 0.8
with probability (1 - 0.8^4)^32 = 5e-8; every candidate is checked exactly, so nothing is joined by mistake.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from graft.data.rows import Row

SIMILAR = 0.8
WORDS = 3
BANDS, PER_BAND = 32, 4
_WORD = re.compile(r"\w+|[^\w\s]")


def normalize(text: str) -> str:
    """Words and punctuation marks with single spaces between, NFKC, case folded: `Is it?` is `is it ?`.

    Punctuation stays, since in code and data it is what is said.
    """
    return " ".join(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def content(row: Row) -> str:
    """What a model is given of a row, as one text: two rows are the same when this is."""
    if "messages" in row:
        return "\n".join(message["content"] for message in row["messages"] if message["role"] != "assistant")
    if "choices" in row:
        return "\n".join([row["question"], *row["choices"]])
    if "tokens" in row:
        return " ".join(row["tokens"])
    columns = [name for name in ("text", "text_pair", "question", "context", "prompt") if name in row]
    # Under a template there may be no prompt column; then the whole row is what the model may be given.
    return "\n".join(str(row[name]) for name in columns or [name for name in row if name != "references"])


def shingles(text: str) -> frozenset[str]:
    """The runs of three words of a normalized text; a shorter text is one shingle."""
    words = text.split()
    if len(words) <= WORDS:
        return frozenset([" ".join(words)])
    return frozenset(" ".join(words[at : at + WORDS]) for at in range(len(words) - WORDS + 1))


def jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    """Shared part of two sets: |left ∩ right| / |left ∪ right|."""
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def similar_pairs(texts: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Pairs of normalized texts with a Jaccard similarity of at least 0.8, enough of them to connect all that are
    connected by such pairs (a pair already connected through others may be left out)."""
    first: dict[str, int] = {}
    unique = [number for number, text in enumerate(texts) if first.setdefault(text, number) == number]
    yield from ((first[text], number) for number, text in enumerate(texts) if first[text] != number)
    sets = [shingles(texts[number]) for number in unique]
    signatures = _signatures(sets)
    groups = Groups(len(unique))
    for bucket in _buckets(signatures):
        for position, left in enumerate(bucket):
            rest = np.array(bucket[position + 1 :], dtype=np.int64)
            # Of 128 hashes, similar sets share 0.8 +- 0.035: below 0.6 an exact look is not needed.
            agree = (signatures[rest] == signatures[left]).mean(axis=1) >= 0.6 if len(rest) else []
            for right in rest[agree]:
                if groups.find(left) != groups.find(int(right)) and jaccard(sets[left], sets[right]) >= SIMILAR:
                    groups.join(left, int(right))
                    yield unique[left], unique[right]


class Groups:
    """Disjoint sets of numbers, joined pair by pair."""

    def __init__(self, count: int) -> None:
        self.parent = list(range(count))

    def find(self, number: int) -> int:
        """The smallest-rooted representative of the set that holds the number."""
        while self.parent[number] != number:
            self.parent[number] = number = self.parent[self.parent[number]]
        return number

    def join(self, left: int, right: int) -> None:
        """Make one set of the two sets that hold these numbers."""
        left, right = self.find(left), self.find(right)
        self.parent[max(left, right)] = min(left, right)


def clusters(texts: Sequence[str]) -> list[list[int]]:
    """Numbers of texts grouped so that near-duplicates (of near-duplicates) are together. Texts are normalized ones."""
    groups = Groups(len(texts))
    for left, right in similar_pairs(texts):
        groups.join(left, right)
    members: dict[int, list[int]] = {}
    for number in range(len(texts)):
        members.setdefault(groups.find(number), []).append(number)
    return list(members.values())


def near(texts: Sequence[str], others: Sequence[str]) -> set[int]:
    """Numbers of the `texts` that are near-duplicates (at least 0.8, not equal) of one of the `others`."""
    known = set(others)
    candidates = [number for number, text in enumerate(texts) if text not in known]
    both = [*dict.fromkeys(others)]
    boundary = len(both)
    sets = [shingles(text) for text in [*both, *(texts[number] for number in candidates)]]
    signatures = _signatures(sets)
    found: set[int] = set()
    for bucket in _buckets(signatures):
        left = np.array([number for number in bucket if number < boundary], dtype=np.int64)
        for right in (number for number in bucket if number >= boundary and number not in found):
            agree = (signatures[left] == signatures[right]).mean(axis=1) >= 0.6 if len(left) else []
            if any(jaccard(sets[number], sets[right]) >= SIMILAR for number in left[agree]):
                found.add(right)
    return {candidates[number - boundary] for number in found}


def _signatures(sets: Sequence[frozenset[str]]) -> NDArray[np.uint32]:
    """MinHash signatures, one row of 128 numbers for each set."""
    generator = np.random.default_rng(0)
    count = BANDS * PER_BAND
    multiplier = generator.integers(1, 2**63, size=count, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offset = generator.integers(0, 2**63, size=count, dtype=np.uint64)
    signatures = np.empty((len(sets), count), dtype=np.uint32)
    for number, members in enumerate(sets):
        hashes = np.fromiter(map(_hash, members), dtype=np.uint64, count=len(members))
        mixed = hashes[:, None] * multiplier + offset
        signatures[number] = (mixed >> np.uint64(32)).astype(np.uint32).min(axis=0)
    return signatures


def _hash(shingle: str) -> int:
    return int.from_bytes(hashlib.blake2b(shingle.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _buckets(signatures: NDArray[np.uint32]) -> Iterable[list[int]]:
    """Groups of at least two rows that agree in all numbers of some band."""
    for band in range(BANDS):
        buckets: dict[bytes, list[int]] = {}
        part = np.ascontiguousarray(signatures[:, band * PER_BAND : (band + 1) * PER_BAND])
        for number, row in enumerate(part):
            buckets.setdefault(row.tobytes(), []).append(number)
        yield from (bucket for bucket in buckets.values() if len(bucket) > 1)
