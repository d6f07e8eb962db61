"""Train, validation and test: as given, or by a hash of the content with near-duplicates on one side."""

import hashlib
import math
from collections.abc import Sequence

from graft.data.duplicates import clusters, content, normalize
from graft.data.rows import Row
from graft.errors import BadInput

SPLITS = ("train", "validation", "test")
Fractions = tuple[float, float, float]


def check_fractions(fractions: Sequence[float]) -> Fractions:
    """Three shares, of train, validation and test, that sum to 1. Raises BadInput otherwise."""
    shares = [float(share) for share in fractions]
    if len(shares) != 3 or min(shares) < 0 or not math.isclose(sum(shares), 1, abs_tol=1e-6) or shares[0] == 0:
        raise BadInput(f"splits: {list(fractions)} are not three shares (train, validation, test) that sum to 1.")
    return shares[0], shares[1], shares[2]


def split_rows(rows: Sequence[Row], fractions: Fractions, seed: int) -> dict[str, list[Row]]:
    """Divide rows by a seeded hash of their content.

    A row's side depends on its own text, its near-duplicates and the seed: the order of the rows does not matter, and
    rows added later leave those that they do not resemble where they were. Within a side the given order is kept.
    A side with a share above 0 is never empty where there are enough distinct rows.
    """
    texts = [normalize(content(row)) for row in rows]
    placed = sorted((_position(min(texts[number] for number in group), seed), group) for group in clusters(texts))
    sides: dict[str, list[list[int]]] = {split: [] for split in SPLITS}
    for position, group in placed:
        sides[_side(position, fractions)].append(group)
    for split, fraction in zip(SPLITS, fractions, strict=True):
        largest = max(sides.values(), key=len)
        if fraction and not sides[split] and len(largest) > 1:
            sides[split].append(largest.pop(0 if split == "train" else -1))
    members = {split: sorted(number for group in groups for number in group) for split, groups in sides.items()}
    return {split: [rows[number] for number in numbers] for split, numbers in members.items()}


def _position(text: str, seed: int) -> float:
    """A number in [0, 1) from the text and the seed."""
    digest = hashlib.blake2b(f"{seed}\n{text}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _side(position: float, fractions: Fractions) -> str:
    if position < fractions[0]:
        return "train"
    return "validation" if position < fractions[0] + fractions[1] or fractions[2] == 0 else "test"
