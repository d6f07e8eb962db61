"""Outputs of several systems for one test set, lined up item by item."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from graft.errors import BadInput
from graft.statistics.measure import Record

Item = int | str
SHOWN = 5


def paired(base_records: Sequence[Record], other_records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """Both systems' records in the order of their items.

    Raises BadInput unless both have the same items, each once, with the same references.
    """
    base, other = lined_up({"base": base_records, "other": other_records})
    return base, other


def lined_up(sides: Mapping[str, Sequence[Record]]) -> list[list[Record]]:
    """The records of every side in the order of their items; the names are for the message.

    Raises BadInput unless all have the same items, each once, with the same references.
    """
    found = {side: _by_item(side, records) for side, records in sides.items()}
    first, *others = found
    problems = []
    for other in others:
        left, right = found[first], found[other]
        for side, missing in ((first, left.keys() - right.keys()), (other, right.keys() - left.keys())):
            if missing:
                against = f" (against {other if side == first else first})" if len(found) > 2 else ""
                problems.append(f"{len(missing)} items only in {side}{against}: {_some(missing)}")
        shared = left.keys() & right.keys()
        differ = [item for item in shared if not _same(left[item].get("reference"), right[item].get("reference"))]
        if differ:
            which = f" in {other} than in {first}" if len(found) > 2 else ""
            problems.append(f"{len(differ)} items have another reference{which}: {_some(differ)}")
    if problems:
        raise BadInput(
            f"these are not {'two' if len(found) == 2 else len(found)} outputs for one test set: "
            f"{'; '.join(problems)}. Score {'both' if len(found) == 2 else 'all'} on the same items."
        )
    order = _ordered(found[first])
    return [[records[item] for item in order] for records in found.values()]


def _by_item(side: str, records: Sequence[Record]) -> Mapping[Item, Record]:
    without = sum("item" not in record for record in records)
    if without:
        raise BadInput(f"{without} of {len(records)} {side} records have no 'item', by which systems are paired.")
    found = {record["item"]: record for record in records}
    if len(found) < len(records):
        seen: set[Item] = set()
        twice = {record["item"] for record in records if record["item"] in seen or seen.add(record["item"])}  # type: ignore[func-returns-value]
        raise BadInput(f"{side} has items more than once: {_some(twice)}. Give each record its own item.")
    return found


def _ordered(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: (isinstance(item, str), item))


def _some(items: Iterable[Item]) -> str:
    ordered = _ordered(items)
    return ", ".join(str(item) for item in ordered[:SHOWN]) + (", …" if len(ordered) > SHOWN else "")


def _same(left: Any, right: Any) -> bool:
    # References may come back from a file as arrays, and NaN equals nothing.
    if isinstance(left, str) and isinstance(right, str):
        return left == right
    return left is right or bool(np.array_equal(np.asarray(left, dtype=object), np.asarray(right, dtype=object)))
