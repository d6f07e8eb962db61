"""The tasks, one file each, found by file: `find("classification")` is the class in `classification.py`."""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from graft.data.columns import nearest
from graft.data.task import Task
from graft.errors import BadInput


def kinds() -> list[str]:
    """The names of all tasks."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def find(kind: str) -> type[Task]:
    """The class of a task. Raises BadInput with the nearest name for an unknown one."""
    if kind not in kinds():
        raise BadInput(f"no task is called {kind!r}{nearest(kind, kinds())}. Known are {', '.join(kinds())}.")
    module = importlib.import_module(f"{__name__}.{kind}")
    return next(
        found
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Task) and found.__module__ == module.__name__
    )


def from_dict(stored: Mapping[str, Any]) -> Task:
    """The task that `Task.as_dict` described. Raises BadInput for fields it does not have or that are missing."""
    task = find(str(stored.get("kind")))
    known = {field.name for field in fields(task)}
    given = {name: _frozen(value) for name, value in stored.items() if name != "kind"}
    if set(given) != known:
        wrong = ", ".join(sorted(set(given) ^ known))
        raise BadInput(f"the stored task {task.kind} does not have the fields it should: {wrong}.")
    return task(**given)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(entry) for entry in value) if isinstance(value, (list, tuple)) else value
