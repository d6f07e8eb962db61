"""`fit`: the task of a data set, with what it learns from the training rows."""

from typing import Any

from graft.data.sets import DataSets
from graft.data.task import Task
from graft.data.tasks import find


def fit(data: DataSets, tokenizer: Any, config: Any, max_length: int | None = None) -> Task:
    """The data's task, fitted to its training rows (to all rows where there are none to train on).

    `config` is the model's. Raises BadInput when the rows do not serve the task, as with one class only.
    """
    rows = data.train or (*data.validation, *data.test)
    task: Any = find(data.task)
    options = {"template": data.template} if data.task in ("generation", "verbalized") else {}
    fitted: Task = task.fit(rows, tokenizer, config, max_length, **options)
    return fitted
