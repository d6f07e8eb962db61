"""Several tasks in one set of rows: which of them a row belongs to, for methods that learn them together.

A row names its task in the cell `task`; its features carry the name, and whoever runs a model on a batch of them says
so to the engine: `with of_tasks(model, named(features))`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from graft.data.columns import nearest
from graft.data.rows import SHOWN, Row
from graft.errors import BadInput
from graft.method import Method, Sum


def named(features: Sequence[Mapping[str, Any]]) -> tuple[str | None, ...] | None:
    """The task of each row or feature; None where none of them names one."""
    names = tuple(feature.get("task") for feature in features)
    return names if any(name is not None for name in names) else None


def grouped(features: Sequence[Any]) -> dict[str | None, list[Any]]:
    """The features of each task together, in their order."""
    groups: dict[str | None, list[Any]] = {}
    for feature in features:
        groups.setdefault(feature.get("task"), []).append(feature)
    return groups


def knowing(method: Method, train: Sequence[Row], held_out: Sequence[Row] = ()) -> Method:
    """The method with the tasks of the train rows, where it needs to know them and was not told.

    Raises BadInput for rows that name no task, or one that the method does not know.
    """
    terms = []
    for term in method.methods():
        tasks: tuple[str, ...] = getattr(term, "tasks", ())
        if term.needs_tasks and not tasks:
            _all_named(type(term).__name__, [*train, *held_out])
            tasks = tuple(sorted({row["task"] for row in train}))
            term = replace(term, tasks=tasks)  # type: ignore[call-arg]
        if tasks:
            check_tasks(tasks, [*train, *held_out], type(term).__name__)
        terms.append(term)
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))


def check_tasks(tasks: Sequence[str], rows: Sequence[Mapping[str, Any]], who: str = "the adapter") -> None:
    """Raise BadInput for rows that name no task, or none of `tasks`, where there are several to tell apart."""
    if len(tasks) > 1 or any("task" in row for row in rows):
        _all_named(who, rows)
        if unknown := sorted({row["task"] for row in rows} - set(tasks)):
            raise BadInput(
                f"{who} knows the tasks {', '.join(tasks)}; rows are of {', '.join(unknown[:SHOWN])}"
                f"{nearest(unknown[0], tasks)}. Leave those rows out, or tune on them."
            )


def _all_named(who: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if bare := [row for row in rows if not isinstance(row.get("task"), str)]:
        first = f", the first {bare[0].where}" if isinstance(bare[0], Row) else ""
        raise BadInput(
            f"{who} learns several tasks at once and must know which one a row belongs to: {len(bare):,} of "
            f"{len(rows):,} rows do not say{first}. Add a column `task`, or say which one it is: --columns task=COLUMN."
        )
