"""Scoring: a model on rows of data, one record per row; two models on the same rows, as differences with intervals.

base = score(model, tokenizer, task, rows)
with graft.use(model, "name"):
    tuned = score(model, tokenizer, task, rows)
outcome(task.metrics, base, tuned).verdict
"""

from graft.scoring.forgetting import GeneralText, forgetting, general_text, measurable, not_for
from graft.scoring.items import write_items
from graft.scoring.majority import majority
from graft.scoring.outcome import Outcome, check_metric, outcome
from graft.scoring.score import example, length, score
from graft.scoring.table import show_outcome, show_samples, show_scores

__all__ = [
    "GeneralText", "Outcome", "check_metric", "example", "forgetting", "general_text", "length", "majority",
    "measurable", "not_for", "outcome", "score", "show_outcome", "show_samples", "show_scores", "write_items",
]  # fmt: skip
