"""Labels over a whole data set: classes or numbers, and the name of each class."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from graft.data.rows import Complaint, Row

# Columns whose name says that the label is a quantity, even when every value is whole.
QUANTITIES = {"score", "similarity", "rating"}


def is_regression(rows: Sequence[Row], column: str) -> bool:
    """Whether the labels are numbers to predict: some have a fraction, or the column's name says so."""
    numbers = [_number(row.get("label")) for row in rows]
    known = [number for number in numbers if number is not None]
    if not known or len(known) < sum(row.get("label") not in (None, "") for row in rows):
        return False
    return column in QUANTITIES or any(number != int(number) for number in known if math.isfinite(number))


def as_numbers(rows: Sequence[Row]) -> tuple[list[Row], list[Complaint]]:
    """Rows with `label` a finite float, and complaints about those without."""
    good, complaints = [], []
    for row in rows:
        number = _number(row.get("label"))
        if number is None or not math.isfinite(number):
            complaints.append(_complaint(row, "the label is no finite number"))
        else:
            good.append(row.having(label=number))
    return good, complaints


def as_names(splits: dict[str, list[Row]], names: Sequence[str]) -> tuple[dict[str, list[Row]], list[Complaint]]:
    """Rows with `label` the name of the class, and `label_id` its number where the data has one.

    A name is, in this order: the row's `label_text`, the data set's own description (`names`, by number), the value.
    Rows of any split teach the names of all. Two names for one number are a complaint.
    """
    complaints: list[Complaint] = []
    known: dict[int, str] = dict(enumerate(names))
    for row in (row for rows in splits.values() for row in rows):
        number, text = _whole(row.get("label")), row.get("label_text")
        if number is None or text in (None, ""):
            continue
        if known.setdefault(number, str(text)) != str(text):
            what = f"label {number} is {str(text)!r} here and {known[number]!r} elsewhere"
            complaints.append(Complaint("unreadable", row.where, what))
    named: dict[str, list[Row]] = {}
    for split, rows in splits.items():
        named[split] = []
        for row in rows:
            problem = _problem(row.get("label"), bool(names))
            if problem:
                complaints.append(_complaint(row, problem))
                continue
            number = _whole(row["label"])
            if number is None:
                named[split].append(row.having(label=str(row["label"])))
            else:
                text = "true" if row["label"] is True else "false" if row["label"] is False else str(number)
                named[split].append(row.having(label=known.get(number, text), label_id=number))
    return named, complaints


def in_order(rows: Sequence[Mapping[str, Any]], column: str = "label") -> tuple[str, ...]:
    """The names of the classes: by number where every row has one, else by the alphabet."""
    numbers: dict[str, int] = {row[column]: row["label_id"] for row in rows if "label_id" in row}
    names = {row[column] for row in rows}
    return tuple(sorted(names, key=lambda name: (numbers.get(name, 0), name) if names <= set(numbers) else (0, name)))


def _problem(label: Any, described: bool) -> str | None:
    if isinstance(label, (list, dict)):
        return "several labels in one row, which no task here takes"
    if label is None or (isinstance(label, str) and not label.strip()):
        return "no label"
    # In data sets that describe their classes, -1 marks a row whose label is withheld.
    return "no label (-1)" if described and label == -1 else None


def _complaint(row: Row, what: str) -> Complaint:
    missing = row.get("label") in (None, "", -1)
    return Complaint("empty" if missing else "unreadable", row.where, f"{what}: {row.get('label')!r}")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None


def _whole(value: Any) -> int | None:
    number = float(value) if isinstance(value, bool) else _number(value)
    return int(number) if number is not None and math.isfinite(number) and number == int(number) else None
