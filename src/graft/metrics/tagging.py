"""Tagging: F1 over entities, in percent, micro-averaged. An entity counts when its type and both ends are right.

Tags are O or B-, I-, E-, S- with a type. Reading is lenient, as in conlleval and seqeval's default mode: an I- or E-
that continues nothing, or changes the type, begins an entity. So IOB1, BIO and IOBES are read without saying which.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from graft.metrics import _record
from graft.metrics._metric import Array, Record, Summed, rows

TAG = re.compile(r"O|([BIES])(?:-(.+))?")
Entity = tuple[str, int, int]


@dataclass(frozen=True, kw_only=True)
class EntityF1(Summed):
    """2·right / (predicted + true) entities. A row is (right, predicted, true)."""

    def statistics(self, records: Sequence[Record]) -> Array:
        outputs = _record.read(self.name, records, "output", _entities)
        references = _record.read(self.name, records, "reference", _entities)
        lengths = [(len(record["output"]), len(record["reference"])) for record in records]
        _record.complain(
            self.name,
            [
                f"item {record.get('item', row)}: {given} tags in output, {wanted} in reference"
                for row, (record, (given, wanted)) in enumerate(zip(records, lengths, strict=True))
                if given != wanted
            ],
        )
        return rows([(len(o & r), len(o), len(r)) for o, r in zip(outputs, references, strict=True)], 3)

    def finish(self, sums: Array) -> Array:
        found = sums[:, 1] + sums[:, 2]
        return np.asarray(200 * sums[:, 0] / np.where(found > 0, found, np.nan))

    def items(self, statistics: Array) -> Array | None:
        # A sentence without entities in which none is found is right.
        return np.where(statistics[:, 1:].sum(axis=1) > 0, self.finish(statistics), 100.0)

    def why(self, statistics: Array) -> str:
        return "no item has an entity in its output or its reference"


def entities(tags: Sequence[str]) -> set[Entity]:
    """The (type, first token, last token) of every entity. Raises ValueError for a tag of another scheme."""
    found: set[Entity] = set()
    current: tuple[str, int] | None = None  # the type and first token of the entity that is open
    last = "O"
    for position, tag in enumerate([*tags, "O"]):
        match = TAG.fullmatch(tag)
        if match is None:
            raise ValueError(
                f"has tag {tag!r} at token {position}; tags are O, or B-, I-, E-, S- and a type (L- is E-, U- is S-)"
            )
        prefix, kind = match[1] or "O", match[2] or "_"
        continues = current is not None and prefix in "IE" and last in "BI" and current[0] == kind
        if current is not None and not continues:
            found.add((current[0], current[1], position - 1))
            current = None
        if prefix != "O" and current is None:
            current = (kind, position)
        last = prefix
    return found


def _entities(value: object) -> set[Entity]:
    return entities(_record.tags(value))


METRICS = (EntityF1(name="entity_f1", title="entity F1"),)
