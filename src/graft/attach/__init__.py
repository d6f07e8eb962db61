"""Grafting: how parts act on a model. Hooks, rows, caches and virtual tokens are private to this folder."""

from graft.attach.adapter import Adapter, Counts, Placed
from graft.attach.attach import attach, detach
from graft.attach.merge import merge, unmerge
from graft.attach.probe import probe
from graft.attach.spot import anatomy_of, grafted, require
from graft.attach.use import of_tasks, use

__all__ = [
    "Adapter", "Counts", "Placed", "anatomy_of", "attach", "detach", "grafted", "merge", "of_tasks", "probe", "require",
    "unmerge", "use",
]  # fmt: skip
