"""Forgetting: the loss per token on text that has nothing to do with the task, before and after."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from graft.attach import require, use
from graft.data import load
from graft.data.tasks import find
from graft.errors import BadInput, Refused
from graft.scoring.outcome import Outcome, outcome
from graft.scoring.room import positions_left
from graft.scoring.score import score

CHUNK = 2000  # characters of a row that a plain text is divided into
ROWS = 100  # rows that are scored, spread evenly over the text
OWN_CHUNK, OWN_ROWS = 1000, 24  # the same of Python's own text, which is measured unasked and so must be quick
LENGTH = 512  # tokens of a window at most


@dataclass(frozen=True)
class GeneralText:
    """Rows of a text that has nothing to do with the task. `given`: the user chose it."""

    name: str
    rows: Sequence[Mapping[str, Any]]
    given: bool


def forgetting(
    model: nn.Module, tokenizer: Any, name: str, text: GeneralText, *, batch: int = 8, show: bool = False
) -> Outcome:
    """Compare the loss per token of the base and of adapter `name` on general text.

    Where it knows several tasks, of which this is none, it does what it does for the first. Raises Refused for a model
    that does not predict the next token.
    """
    if why := not_for(model, tokenizer):
        raise Refused(why)
    rows = text.rows
    kind = find("language_modeling")
    limit = min(LENGTH, kind.fit(rows, tokenizer, model.config).max_length)
    if left := positions_left(model, name):
        limit = min(limit, left[0])
    task = kind.fit(rows, tokenizer, model.config, limit)
    tasks = require(model, name).adapters[name].tasks
    on = f"{text.name}, as {tasks[0]}" if tasks else text.name
    found = []
    for which in (None, name):
        with use(model, which, tasks[0] if tasks else None):
            found.append(score(model, tokenizer, task, rows, batch=batch, title="general text", show=show))
    return outcome(["loss", "perplexity"], *found, on=on)


def not_for(model: nn.Module, tokenizer: Any) -> str | None:
    """Why forgetting cannot be measured on this model, or None."""
    from transformers import AutoModelForCausalLM

    if type(model) not in AutoModelForCausalLM._model_mapping.values():
        return f"forgetting is measured on models that predict the next token; {type(model).__name__} does not."
    if tokenizer.eos_token_id is None:
        return "forgetting is measured on whole texts, and the tokenizer has no end token."
    return None


def measurable(text: GeneralText, model: nn.Module, tokenizer: Any, notes: list[str]) -> GeneralText | None:
    """The text, where forgetting can be measured with it; else None, with the reason added to `notes`.

    Raises Refused, with the reason, where the user gave the text.
    """
    why = not_for(model, tokenizer)
    if why and text.given:
        raise Refused(why)
    notes += [why] if why else []
    return None if why else text


def general_text(text: str | Path | None = None) -> GeneralText:
    """At most 100 rows of `text`, spread evenly over a .txt file or over anything that `graft.data.load` reads.

    None: 24 passages of the language reference that comes with every Python, in `pydoc_data.topics`. Raises BadInput
    for a text that cannot be read or is empty.
    """
    if text is None:
        from pydoc_data.topics import topics

        version = ".".join(map(str, sys.version_info[:2]))
        pieces = _pieces("\n\n".join(topics[name] for name in sorted(topics)), OWN_CHUNK)
        return GeneralText(f"the language reference of Python {version}", _spread(pieces, OWN_ROWS), given=False)
    path = Path(text)
    if path.suffix != ".txt":
        found: list[Mapping[str, Any]] = list(load(text, task="language_modeling", splits="test").test)
    else:
        try:
            whole = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read the general text {path}: {error}.") from error
        found = _pieces(whole, CHUNK)
    if not found:
        raise BadInput(f"the general text {text} is empty.")
    return GeneralText(str(text), _spread(found, ROWS), given=True)


def _spread(rows: list[Mapping[str, Any]], most: int) -> list[Mapping[str, Any]]:
    return rows[:: max(1, len(rows) // most)][:most]


def _pieces(whole: str, size: int) -> list[Mapping[str, Any]]:
    """Rows of whole lines, together as long as `size`."""
    pieces, current = [], ""
    for line in whole.splitlines(keepends=True):
        current += line
        if len(current) >= size:
            pieces.append(current)
            current = ""
    return [{"text": piece} for piece in [*pieces, current] if piece.strip()]
