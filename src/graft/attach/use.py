"""Which adapter a forward uses: one for all rows, none, or one for each row."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import nn

from graft.attach import in_place
from graft.attach.call import Names
from graft.attach.spot import Grafted, grafted, require
from graft.errors import BadInput, Refused


@contextmanager
def use(
    model: nn.Module, names: str | Sequence[str | None] | None, tasks: str | Sequence[str | None] | None = None
) -> Iterator[nn.Module]:
    """Within the `with`, run `model` with one adapter, with None (the base), or with one name or None per row.

    A sequence names the rows of each batch; a batch may hold a multiple of it (beams, several returns). `tasks`: which
    task the rows belong to, or one for each, where an adapter knows several; None leaves it as it was. Raises BadInput
    for an unknown name, Refused where an adapter is merged or trains the base's own tensors and rows would differ.
    """
    record = require(model)
    if not (names is None or isinstance(names, str) or _all_names(names)):
        raise BadInput(f"an adapter is used by its name, None is the base, got {names!r}. A list has one for each row.")
    wanted = names if names is None or isinstance(names, str) else tuple(names)
    if isinstance(wanted, tuple) and len(set(wanted)) == 1:
        wanted = wanted[0]
    _check(record, wanted)
    before = record.names
    _switch(record, wanted)
    try:
        with of_tasks(model, tasks):
            yield model
    finally:
        _switch(record, _left(record, before))


@contextmanager
def of_tasks(model: nn.Module, tasks: str | Sequence[str | None] | None) -> Iterator[None]:
    """Within the `with`, rows belong to one task, or each to its own; None leaves it as it was. What knows no tasks
    does not ask."""
    record = grafted(model)
    if record is None or tasks is None:
        yield
        return
    if not isinstance(tasks, str) and not _all_names(tasks):
        raise BadInput(f"a task is given by its name, a list has one for each row, got {tasks!r}.")
    if not tasks:
        raise BadInput("an empty list of tasks: give one task, or one per row.")
    before, record.tasks = record.tasks, tasks if isinstance(tasks, str) else tuple(tasks)
    try:
        yield
    finally:
        record.tasks = before


def _all_names(names: object) -> bool:
    """Whether this is a sequence of names and Nones."""
    return isinstance(names, Sequence) and all(name is None or isinstance(name, str) for name in names)


def _left(record: Grafted, names: Names) -> Names:
    """The names that were in use, or the last adapter left where one of them was detached meanwhile."""
    every = names if isinstance(names, tuple) else (names,)
    there = all(name is None or name in record.adapters for name in every)
    return names if there else next(reversed(record.adapters), None)


def _check(record: Grafted, names: Names) -> None:
    every = names if isinstance(names, tuple) else (names,)
    if not every:
        raise BadInput("an empty list of adapter names: give one name, None, or one per row.")
    if unknown := sorted({name for name in every if name is not None and name not in record.adapters}):
        raise BadInput(f"there is no adapter {', '.join(unknown)}; attached are: {', '.join(record.adapters)}.")
    for name, adapter in record.adapters.items():
        if adapter.merged and names != name:
            raise Refused(
                f"{name!r} is merged into the base, which is all there is now. Unmerge it to use anything else."
            )
        if adapter.trained and isinstance(names, tuple):
            raise Refused(f"{name!r} trains the base's own tensors: rows of one batch cannot differ.")


def _switch(record: Grafted, names: Names) -> None:
    for name, adapter in record.adapters.items():
        in_place.show(record, adapter, tuned=names == name)
    record.names, record.call = names, None
