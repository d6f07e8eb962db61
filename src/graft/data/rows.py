"""A row and where it came from; complaints about rows, gathered and raised once."""

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graft.errors import BadInput

SHOWN = 20


@dataclass(frozen=True, slots=True, eq=False)
class Row(Mapping[str, Any]):
    """One row: a read-only mapping from column to value, and `where`, its `file:line` for messages."""

    cells: Mapping[str, Any]
    where: str

    def __getitem__(self, column: str) -> Any:
        return self.cells[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)

    def having(self, **cells: Any) -> "Row":
        """The same row with some cells set."""
        return Row({**self.cells, **cells}, self.where)


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why one row (or one file) cannot be used. `check` is the name that `allow` takes."""

    check: str
    where: str
    what: str


# What happens to the offending rows when the user allows a check; a check that is not here cannot be allowed.
ALLOWANCES = {
    "unreadable": "drops the rows that cannot be read",
    "empty": "drops the rows with nothing in a needed column",
    "masked": "drops the rows of which no token is trained",
    "cut": "trains on answers cut at the length limit, without their end",
    "leakage": "drops the train rows that are also in validation or test",
    "unseen": "keeps validation and test rows with labels that train lacks; they count as wrong",
}


def check_allowances(allow: Sequence[str]) -> tuple[str, ...]:
    """The names in `allow`, checked. Raises BadInput for one that is not a known allowance."""
    unknown = [name for name in allow if name not in ALLOWANCES]
    if unknown:
        known = "\n".join(f"  {name:<11} {effect}" for name, effect in ALLOWANCES.items())
        raise BadInput(f"allow: no such allowance: {', '.join(unknown)}. Known are\n{known}")
    return tuple(dict.fromkeys(allow))


def raise_complaints(complaints: Sequence[Complaint], allow: Sequence[str] = ()) -> None:
    """Raise one BadInput with every complaint that is not allowed (the first 20 of each check are spelled out)."""
    left = [complaint for complaint in complaints if complaint.check not in allow]
    if not left:
        return
    lines = []
    for check, count in Counter(complaint.check for complaint in left).items():
        of_check = [complaint for complaint in left if complaint.check == check]
        lines.append(f"{check}: {count} {'complaint' if count == 1 else 'complaints'}")
        lines += [f"  {complaint.where}  {complaint.what}" for complaint in of_check[:SHOWN]]
        if count > SHOWN:
            lines.append(f"  ... and {count - SHOWN} more")
        if check in ALLOWANCES:
            lines.append(f"  Correct them, or allow {check!r} (--allow {check}), which {ALLOWANCES[check]}.")
    raise BadInput("the data cannot be used as it is.\n" + "\n".join(lines))


def content_hash(parts: Mapping[str, Iterable[Mapping[str, Any]]]) -> str:
    """SHA-256 (hexadecimal) of the cells of all rows, in order, by part; independent of file names and of Python."""
    digest = hashlib.sha256()
    for part, rows in parts.items():
        digest.update(f"\n# {part}\n".encode())
        for row in rows:
            line = json.dumps(dict(row), sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
            digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
    return digest.hexdigest()


def some(rows: Sequence[Row], most: int, seed: int) -> Sequence[Row]:
    """At most so many rows (0: all), chosen by the seed, in their order."""
    if not most or len(rows) <= most:
        return rows
    return [rows[at] for at in sorted(random.Random(seed).sample(range(len(rows)), most))]
