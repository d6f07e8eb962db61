"""The data gate: what no training should start with. Every complaint of every check, by file and line, in one error."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console

from graft.data.duplicates import content, near, normalize
from graft.data.rows import Complaint, Row, check_allowances, content_hash, raise_complaints
from graft.data.sets import DataSets
from graft.data.splits import SPLITS
from graft.data.task import Task
from graft.errors import BadInput

REASONS = {"leakage": "also in validation or test", "masked": "nothing to train on", "unreadable": "not usable"}


@dataclass(frozen=True)
class Report:
    """What the gate counted. `rows` by split; `dropped` train rows, by reason; the rest are counts of rows.

    `leaked`: train rows that are also in validation or test (case and white space do not count). `near_duplicates`:
    train rows nearly so (word 3-shingles, Jaccard >= 0.8). `repeated`: train rows that repeat another train row.
    `cut`: rows whose answer does not fit the length limit. `masked`: rows with nothing to train on. `unseen`:
    validation and test rows with a label that train lacks.
    """

    rows: dict[str, int]
    dropped: dict[str, int]
    leaked: int
    near_duplicates: int
    repeated: int
    cut: int
    masked: int
    unseen: int

    def lines(self) -> list[str]:
        """What a user should see; always the sizes, then only what is not zero."""
        found = [("data: " + ", ".join(f"{count:,} {split}" for split, count in self.rows.items()))]
        found += [f"dropped {count:,} train rows: {reason}" for reason, count in self.dropped.items()]
        if self.near_duplicates:
            found.append(f"warning: {self.near_duplicates:,} train rows are nearly the same as one to be tested on")
        if self.repeated:
            found.append(f"{self.repeated:,} train rows repeat another one")
        if self.cut:
            found.append(f"{self.cut:,} answers are cut at the length limit")
        if self.unseen:
            found.append(f"{self.unseen:,} rows to be tested on have a label that train lacks; they count as wrong")
        return found

    def show(self, console: Console) -> None:
        """Print the lines."""
        for line in self.lines():
            console.print(line, highlight=False, markup=False)


def check(
    data: DataSets, task: Task, tokenizer: Any, allow: Sequence[str] = (), cut_share: float = 0.05
) -> tuple[DataSets, Report]:
    """Check the data as the task will see it. Gives the data to train on, and what was counted.

    Refused: rows with nothing to train on; answers cut by the length limit in more than `cut_share` of the rows; train
    rows that are also in validation or test; rows that cannot be encoded; labels of validation and test that train
    lacks. (One class only is refused by `Task.fit`.) `allow` names checks to live with, see `ALLOWANCES`: with
    "leakage" the *train* rows go, so that scores stay comparable with published ones.

    Raises BadInput with all complaints.
    """
    allow = check_allowances(allow)
    looks = {split: [_look(row, task, tokenizer) for row in rows] for split, rows in data.splits.items()}
    problems = [problem for found in looks.values() for problem in found if problem is not None]
    cut, bad = ([problem for problem in problems if (problem.check == "cut") is cut] for cut in (True, False))
    leaked, unseen = leaking(data), _unseen(data, task)
    leaks = [Complaint("leakage", data.train[at].where, f"is also {where}") for at, where in leaked.items()]
    often = len(cut) > cut_share * sum(map(len, looks.values()))
    raise_complaints([*leaks, *unseen, *bad, *(cut if often else ())], allow)
    reasons = {split: [_reason(problem) for problem in found] for split, found in looks.items()}
    for at in leaked:
        reasons["train"][at] = reasons["train"][at] or "leakage"
    kept = {split: _without(rows, reasons[split]) for split, rows in data.splits.items()}
    if data.train and not kept["train"]:
        raise BadInput("no train row is left after dropping what was allowed.")
    near_count, repeated = _resemblance(data, kept.get("train", ()))
    report = Report(
        rows={split: len(rows) for split, rows in kept.items()},
        dropped=dict(Counter(REASONS.get(reason, reason) for reason in reasons.get("train", ()) if reason)),
        leaked=len(leaked), near_duplicates=near_count, repeated=repeated, cut=len(cut),
        masked=sum(problem.check == "masked" for problem in bad), unseen=len(unseen),
    )  # fmt: skip
    if not any(reason for found in reasons.values() for reason in found):
        return data, report
    train, validation, test = (kept.get(split, ()) for split in SPLITS)
    digest = content_hash({"train": train, "validation": validation, "test": test})
    return replace(data, train=train, validation=validation, test=test, hash=digest), report


def _reason(problem: Complaint | None) -> str | None:
    """Why a row is dropped where that is allowed; one whose answer is cut stays."""
    return None if problem is None or problem.check == "cut" else problem.check


def _without(rows: Sequence[Row], reasons: Sequence[str | None]) -> tuple[Row, ...]:
    """The rows that there is no reason to drop."""
    return tuple(row for row, reason in zip(rows, reasons, strict=True) if reason is None)


def leaking(data: DataSets) -> dict[int, str]:
    """Train rows whose input is also one of validation or test: index -> where it is."""
    held: dict[str, str] = {}
    for rows in (data.test, data.validation):
        for row in rows:
            held[normalize(content(row))] = row.where
    return {at: held[text] for at, row in enumerate(data.train) if (text := normalize(content(row))) in held}


def _resemblance(data: DataSets, train: Sequence[Row]) -> tuple[int, int]:
    texts = [normalize(content(row)) for row in train]
    held = [normalize(content(row)) for row in (*data.validation, *data.test)]
    return len(near(texts, held)) if held else 0, len(texts) - len(set(texts))


def _look(row: Row, task: Task, tokenizer: Any) -> Complaint | None:
    """What is wrong with a row as the task encodes it."""
    try:
        feature = task.encode(row, tokenizer)
    except BadInput as error:
        return Complaint("unreadable", row.where, str(error))
    if task.masked(feature) and not task.unseen(row) and row.get("answers") != []:
        return Complaint("masked", row.where, f"nothing is trained: {task.input(row)[:60]!r}")
    if feature.get("cut"):
        return Complaint("cut", row.where, f"the answer does not fit in {task.max_length} tokens")
    return None


def _unseen(data: DataSets, task: Task) -> list[Complaint]:
    """Labels (or tags) of validation and test rows that train does not have."""
    return [
        Complaint("unseen", row.where, f"label {', '.join(labels)} is not in train ({', '.join(task.known())})")
        for rows in (data.validation, data.test)
        for row in rows
        if (labels := task.unseen(row))
    ]
