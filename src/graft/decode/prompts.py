"""Prompts: read from a file or the terminal, and made into ids as an adapter's task makes them in training."""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from graft.data.encoding import prompt_ids
from graft.data.task import Task
from graft.data.templates import columns_of
from graft.errors import BadInput


def prompted(task: Task | None, tokenizer: Any, asked: str | Mapping[str, Any], turns: Sequence[Any] = ()) -> list[int]:
    """The ids that the model goes on from, as the task makes its prompts; without a task the text as it is.

    asked: a text, or a row for a template with several columns. turns: earlier messages of a chat. Raises BadInput when
    the template needs columns that a text alone does not give.
    """
    kind = task.kind if task is not None else None
    if kind == "chat":
        assert task is not None
        messages = asked["messages"] if isinstance(asked, Mapping) else [*turns, {"role": "user", "content": asked}]
        return list(task.encode({"messages": messages}, tokenizer)["input_ids"])
    if kind == "generation":
        assert task is not None
        return list(task.encode(_row(task, asked), tokenizer)["input_ids"])
    if not isinstance(asked, str):
        raise BadInput(f"a row with {', '.join(asked)} needs an adapter with a prompt template; give a text.")
    start, rest = prompt_ids(asked, tokenizer)
    return [*start, *rest]


def _row(task: Any, asked: str | Mapping[str, Any]) -> Mapping[str, Any]:
    columns = columns_of(task.template)
    if isinstance(asked, str):
        if len(columns) > 1:
            raise BadInput(
                f"the adapter's template needs the columns {', '.join(sorted(columns))}: give prompts as rows in a "
                ".jsonl file with --prompts."
            )
        return {next(iter(columns)): asked}
    if missing := sorted(columns - asked.keys()):
        raise BadInput(f"the adapter's template needs the columns {', '.join(missing)}, which a prompt lacks.")
    return asked


def read_prompts(path: Path) -> list[Any]:
    """The prompts of a file: lines of text, or of JSON (texts, or rows for a template).

    Raises BadInput with the line that cannot be read, or when there is none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read the prompts {path}: {error}.") from error
    if path.suffix not in (".jsonl", ".json"):
        found: list[Any] = [line for line in lines if line.strip()]
    else:
        found = _read_json(path, lines)
    if not found:
        raise BadInput(f"{path}: there are no prompts in it.")
    return found


def _read_json(path: Path, lines: Sequence[str]) -> list[Any]:
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise BadInput(f"{path}:{number}: not JSON: {error}.") from error
        if not isinstance(row, (str, dict)):
            raise BadInput(f"{path}:{number}: a prompt is a text or an object, this is {type(row).__name__}.")
        found.append(row["prompt"] if isinstance(row, dict) and row.keys() == {"prompt"} else row)
    return found


def typed() -> Iterator[str]:
    """Prompts typed at the terminal, or piped in, until an empty line or the end."""
    while True:
        if sys.stdin.isatty():
            print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline().rstrip("\n")
        if not line.strip():
            return
        yield line
