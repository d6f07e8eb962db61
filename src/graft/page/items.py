"""The items of a comparison: read, judged, and as many kept as a page can hold, the telling ones first."""

import json
import random
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graft.errors import BadInput, sentence
from graft.page.standings import ITEMS, Plain
from graft.page.words import cut

LONGEST = 4000  # characters of a text that are shown
SAMPLES = 5
FIXED = ("board", "item", "where", "input", "reference")


@dataclass(frozen=True)
class Item:
    """One item of a board with what each contestant gave; `scores` are means over seeds, None where there is none."""

    board: str
    item: str
    where: str
    input: str
    reference: str
    outputs: dict[str, str]
    scores: dict[str, float | None]

    @property
    def disagreed(self) -> bool:
        """Whether contestants differ on it."""
        return len({score for score in self.scores.values() if score is not None}) > 1

    @property
    def size(self) -> int:
        """About how many bytes it takes in the page."""
        texts = (self.where, self.input, self.reference, *self.outputs.values())
        return sum(len(json.dumps(text)) for text in texts) + 8 * len(self.scores) + 20


@dataclass(frozen=True)
class Judge:
    """When a score counts as right: more than half of the seeds, or, where scores are graded, beyond the median.

    `cut` is None where no item has a score.
    """

    graded: bool
    cut: float | None


@dataclass(frozen=True)
class Kept:
    """Items that go on the page, in the order of the files, and of how many they are."""

    items: list[Item]
    total: int
    seed: int
    judges: dict[str, Judge] = field(default_factory=dict)

    @property
    def rule(self) -> str:
        """Which items were kept, in a sentence; empty when all were."""
        if len(self.items) == self.total:
            return ""
        return (
            f"This page holds {len(self.items):,} of {self.total:,} items: from every board in turn those on which "
            f"contestants disagree, then others, in an order drawn with seed {self.seed}. All are in {ITEMS}."
        )


def read(run: Path) -> list[Item]:
    """All items of a run, in order; none when it has no items. Raises BadInput for a file that cannot be read."""
    path = run / ITEMS
    if not path.is_file():
        return []
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows: list[Plain] = pq.read_table(path).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} cannot be read as Parquet: {sentence(error)} Run `graft compare` again.") from None
    if rows and (lost := [name for name in FIXED if name not in rows[0]]):
        raise BadInput(f"{path} has no column {', '.join(lost)}. Run `graft compare` again to write it anew.")
    return [_item(row) for row in rows]


def keep(items: Sequence[Item], seed: int, room: int) -> Kept:
    """As many items as fit in `room` bytes: each board in turn, disagreements first, in an order drawn by `seed`."""
    boards: dict[str, list[Item]] = {}
    for item in items:
        boards.setdefault(item.board, []).append(item)
    judges = {board: judge(of) for board, of in boards.items()}
    if sum(item.size for item in items) <= room:
        return Kept(list(items), len(items), seed, judges)
    queues = []
    for of in boards.values():
        drawn = random.Random(seed).sample(of, len(of))
        queues.append(sorted(drawn, key=lambda item: not item.disagreed))
    chosen: set[int] = set()
    for turn in range(max(map(len, queues))):
        for queue in queues:
            if turn < len(queue):
                room -= queue[turn].size
                if room < 0:
                    return Kept([item for item in items if id(item) in chosen], len(items), seed, judges)
                chosen.add(id(queue[turn]))
    return Kept([item for item in items if id(item) in chosen], len(items), seed, judges)


def judge(items: Iterable[Item]) -> Judge:
    """Whether the items of a board are right or wrong, or graded: the first where all scores are k of n seeds."""
    scores = [score for item in items for score in item.scores.values() if score is not None]
    if not scores:
        return Judge(True, None)
    for seeds in range(1, 11):
        if all(abs(score * seeds / 100 - round(score * seeds / 100)) < 1e-6 and 0 <= score <= 100 for score in scores):
            if max(scores) > 1 or max(scores) == 0:
                return Judge(False, 50.0)
            break
    return Judge(True, statistics.median(scores))


def samples(items: Sequence[Item], seed: int) -> dict[str, list[Item]]:
    """A few items of each board, drawn by `seed` and not by success, in the order of the files."""
    boards: dict[str, list[Item]] = {}
    for item in items:
        boards.setdefault(item.board, []).append(item)
    return {
        board: [of[at] for at in sorted(random.Random(seed).sample(range(len(of)), min(SAMPLES, len(of))))]
        for board, of in boards.items()
    }


def packed(kept: Kept, boards: Sequence[str], contestants: Sequence[str]) -> Plain:
    """The items for the page's script: equal texts once, rows as lists of places in these texts."""
    places: dict[str, int] = {}

    def place(text: str | None) -> int:
        return -1 if text is None else places.setdefault(text, len(places))

    rows = [
        [boards.index(item.board), item.item, place(item.where), place(item.input), place(item.reference),
         _trimmed([place(item.outputs.get(name)) for name in contestants], -1),
         _trimmed([_round(item.scores.get(name)) for name in contestants], None)]
        for item in kept.items
    ]  # fmt: skip
    judges = [[kept.judges[board].graded, kept.judges[board].cut] if board in kept.judges else None for board in boards]
    return {"texts": list(places), "rows": rows, "judges": judges, "rule": kept.rule, "total": kept.total}


def _item(row: Plain) -> Item:
    outputs = {
        key[:-7]: cut(_text(row[key]), LONGEST) for key in row if key.endswith(".output") and row[key] is not None
    }
    scores = {key[:-6]: _finite(row[key]) for key in row if key.endswith(".score") and key[:-6] in outputs}
    texts = {name: cut(_text(row[name]), LONGEST) for name in FIXED}
    return Item(**texts, outputs=outputs, scores=scores)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _finite(score: float | None) -> float | None:
    return None if score is None or score != score or abs(score) == float("inf") else float(score)


def _round(score: float | None) -> float | None:
    return None if score is None else float(f"{score:.4g}")


def _trimmed(values: list[Any], empty: Any) -> list[Any]:
    """Without the empty ones at the end."""
    while values and values[-1] == empty:
        values.pop()
    return values
