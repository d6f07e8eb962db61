"""Forgetting: the loss per token on text that has nothing to do with the task, before and after."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from graft.attach import use
from graft.data import load
from graft.data.tasks import find
from graft.errors import BadInput, Refused
from graft.scoring.outcome import Outcome, outcome
from graft.scoring.room import positions_left
from graft.scoring.score import score

CHUNK = 2000  # characters of a row that a plain text is divided into
ROWS = 100  # rows that are scored, spread evenly over the text
LENGTH = 512  # tokens of a window at most


def forgetting(
    model: nn.Module,
    tokenizer: Any,
    name: str,
    text: str | Path | Sequence[Mapping[str, Any]],
    *,
    batch: int = 8,
    show: bool = False,
) -> Outcome:
    """Compare the loss per token of the base and of adapter `name` on general text.

    text: what `general_rows` gave, or what it takes. Raises Refused for a model that does not predict the next token,
    BadInput for a text that cannot be read.
    """
    if why := not_for(model):
        raise Refused(why)
    rows = general_rows(text) if isinstance(text, (str, Path)) else text
    kind = find("language_modeling")
    limit = min(LENGTH, kind.fit(rows, tokenizer, model.config).max_length)
    if left := positions_left(model, name):
        limit = min(limit, left[0])
    task = kind.fit(rows, tokenizer, model.config, limit)
    found = []
    for which in (None, name):
        with use(model, which):
            found.append(score(model, tokenizer, task, rows, batch=batch, title="general text", show=show))
    return outcome(["loss", "perplexity"], *found)


def not_for(model: nn.Module) -> str | None:
    """Why forgetting cannot be measured on this model, or None."""
    from transformers import AutoModelForCausalLM

    if type(model) in AutoModelForCausalLM._model_mapping.values():
        return None
    return f"forgetting is measured on models that predict the next token; {type(model).__name__} does not."


def general_rows(text: str | Path) -> list[Mapping[str, Any]]:
    """At most 100 rows of `text`, spread evenly over a .txt file or over anything that `graft.data.load` reads.

    Raises BadInput for a text that cannot be read or is empty.
    """
    path = Path(text)
    if path.suffix != ".txt":
        found: list[Mapping[str, Any]] = list(load(text, task="language_modeling", splits="test").test)
    else:
        try:
            whole = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read the general text {path}: {error}.") from error
        found = [{"text": piece} for piece in _pieces(whole)]
    if not found:
        raise BadInput(f"the general text {text} is empty.")
    step = max(1, len(found) // ROWS)
    return found[::step][:ROWS]


def _pieces(whole: str) -> list[str]:
    """Whole lines, together as long as a chunk."""
    pieces, current = [], ""
    for line in whole.splitlines(keepends=True):
        current += line
        if len(current) >= CHUNK:
            pieces.append(current)
            current = ""
    return [*pieces, *([current] if current.strip() else [])]
