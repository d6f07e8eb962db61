"""Data: any usual format and shape of rows, into splits and tasks, with nothing wrong let through.

data = graft.data.load("trec", allow=("leakage",))            # files -> rows in splits; reads no model
task = graft.data.fit(data, tokenizer, model.config)          # what the task learns from the training rows
data, report = graft.data.check(data, task, tokenizer)        # refuses what no training should start with
features = task.features(data.train, tokenizer, train=True)   # see graft/data/task.py
"""

import importlib
from typing import TYPE_CHECKING, Any

from graft.data.columns import format_columns, parse_columns
from graft.data.rows import ALLOWANCES, Row
from graft.data.sets import DataSets, load

if TYPE_CHECKING:
    from graft.data.fitting import fit
    from graft.data.gate import Report, check
    from graft.data.mask import show_mask
    from graft.data.padding import prepare_padding
    from graft.data.task import Task

__all__ = [
    "ALLOWANCES", "DataSets", "Report", "Row", "Task", "check", "fit", "format_columns", "load", "parse_columns",
    "prepare_padding", "show_mask",
]  # fmt: skip

# These need torch, which `load` does not.
_LATER = {
    "Report": "gate", "Task": "task", "check": "gate", "fit": "fitting", "prepare_padding": "padding",
    "show_mask": "mask",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
