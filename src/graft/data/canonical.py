"""Rows of every kind in the one form that the tasks read. Each function takes a row and gives the cells to set.

classification, regression   text, text_pair?, label                  (labels: see labels.py)
verbalized                   as classification
tagging                      tokens: list of words, tags: list of names
question_answering           question, context, answers: [{"text", "answer_start"}]
multiple_choice              question, choices: list of texts, answer: index
generation                   prompt, completion, references: list of texts
chat                         messages: [{"role", "content"}], the last one the assistant's
language_modeling            text

A row of any kind may name its `task`, where several are learned together.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from graft.data.rows import Row

Cells = dict[str, Any]
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system",
         "bot": "assistant", "model": "assistant", "chatgpt": "assistant", "tool": "tool"}  # fmt: skip


class Unusable(Exception):
    """A row cannot be put in canonical form. `check` is the name of the complaint it becomes."""

    def __init__(self, what: str, check: str = "unreadable") -> None:
        super().__init__(what)
        self.check = check


def task_cells(row: Row) -> Cells:
    """`task`, where the row names one, as text."""
    name = row.get("task")
    return {"task": str(name)} if isinstance(name, (str, int)) and str(name).strip() else {}


def text_cells(row: Row) -> Cells:
    """`text` (and `text_pair`) as they are; neither may be empty."""
    return {column: _text(row, column) for column in ("text", "text_pair") if column in row or column == "text"}


def tagging_cells(row: Row) -> Cells:
    """`tokens` and `tags` as equally long lists."""
    tokens, tags = _list(row, "tokens"), _list(row, "tags")
    if not tokens:
        raise Unusable("no tokens", "empty")
    if len(tokens) != len(tags):
        raise Unusable(f"{len(tokens)} tokens and {len(tags)} tags")
    return {"tokens": [str(token) for token in tokens], "tags": tags}


def question_cells(row: Row) -> Cells:
    """`answers` as a list of texts with their offset in the context; a missing offset is looked up."""
    context = _text(row, "context")
    answers = row["answers"]
    if isinstance(answers, str) and answers.lstrip()[:1] in ("{", "["):
        answers = _decoded(answers, "answers")
    if isinstance(answers, Mapping):
        texts = answers.get("text") or []
        starts = answers.get("answer_start") or [None] * len(texts)
        if len(starts) != len(texts):
            raise Unusable(f"{len(texts)} answers and {len(starts)} offsets")
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if isinstance(answers, str):
        answers = [answers]
    if answers is None or not isinstance(answers, list):
        raise Unusable("no answers", "empty")
    return {
        "question": _text(row, "question"),
        "context": context,
        "answers": [_answer(answer, context) for answer in answers],
    }


def choice_cells(row: Row) -> Cells:
    """`choices` as texts and `answer` as an index, from a number, a letter, a label or the text itself."""
    question = row["question"]
    if isinstance(question, list):
        question = _copa(*map(str, question))
    choices, names = row["choices"], None
    if isinstance(choices, str):
        choices = _decoded(choices, "choices")
    if isinstance(choices, Mapping):
        names = choices.get("label")
        choices = choices.get("text")
    if not isinstance(choices, list) or len(choices) < 2:
        raise Unusable("needs at least two choices", "empty")
    choices = [str(choice) for choice in choices]
    if not all(choice.strip() for choice in choices):
        raise Unusable("an empty choice", "empty")
    if not isinstance(question, str) or not question.strip():
        raise Unusable("no question", "empty")
    return {"question": question, "choices": choices, "answer": _choice(row["answer"], choices, names)}


def generation_cells(row: Row) -> Cells:
    """`prompt`, `completion` (the first reference) and `references`; Alpaca rows become a prompt."""
    if "instruction" in row and "prompt" not in row:
        row = row.having(prompt=_instruction(row), completion=row.get("output"))
    given = row["references"] if row.get("references") else row.get("completion")
    references = list(given) if isinstance(given, (list, tuple)) else [given]
    references = [str(text) if isinstance(text, (int, float)) else text for text in references]
    if not references or not all(isinstance(text, str) and text.strip() for text in references):
        raise Unusable("an empty completion", "empty")
    cells: Cells = {"completion": references[0], "references": references}
    if "prompt" in row:
        if isinstance(row["prompt"], list):
            raise Unusable("the prompt is a list; write a --template for it, as in '{{ prompt | join(\"; \") }}'")
        cells["prompt"] = _text(row, "prompt")
    return cells


def chat_cells(row: Row) -> Cells:
    """`messages` with roles and texts, from messages, ShareGPT conversations or Alpaca rows."""
    if "instruction" in row and "messages" not in row:
        answer = _text(row, "output")
        return {"messages": [_message("user", _instruction(row)), _message("assistant", answer)]}
    turns = _list(row, "messages" if "messages" in row else "conversations")
    messages = []
    for turn in turns:
        if not isinstance(turn, Mapping):
            raise Unusable("a message must be an object with role and content")
        role = str(turn.get("role", turn.get("from", "")))
        content = turn.get("content", turn.get("value"))
        if role not in ROLES:
            raise Unusable(f"no role {role!r}; known are {', '.join(ROLES)}")
        if not isinstance(content, str):
            raise Unusable(f"the {role} message holds {type(content).__name__}, not text")
        messages.append(_message(ROLES[role], content))
    if not any(message["role"] == "assistant" for message in messages):
        raise Unusable("no message of the assistant: nothing to learn", "masked")
    while messages[-1]["role"] != "assistant":
        messages.pop()
    if not messages[-1]["content"].strip():
        raise Unusable("the assistant's last message is empty", "empty")
    return {"messages": messages}


CELLS: dict[str, Callable[[Row], Cells]] = {
    "classification": text_cells,
    "regression": text_cells,
    "verbalized": text_cells,
    "tagging": tagging_cells,
    "question_answering": question_cells,
    "multiple_choice": choice_cells,
    "generation": generation_cells,
    "chat": chat_cells,
    "language_modeling": text_cells,
}


def _text(row: Row, column: str) -> str:
    value = row.get(column)
    if value is None or (isinstance(value, str) and not value.strip()):
        raise Unusable(f"{column} is empty", "empty")
    if not isinstance(value, str):
        raise Unusable(f"{column} holds {type(value).__name__}, not text")
    return value


def _list(row: Row, column: str) -> list[Any]:
    """A list, also from a cell of a CSV: JSON, or words with spaces between."""
    value = row.get(column)
    if isinstance(value, str):
        value = _decoded(value, column) if value.lstrip().startswith("[") else value.split()
    if value is None or (isinstance(value, list) and not value):
        raise Unusable(f"{column} is empty", "empty")
    if not isinstance(value, list):
        raise Unusable(f"{column} holds {type(value).__name__}, not a list")
    return value


def _decoded(value: str, column: str) -> Any:
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{column} is not JSON: {error}") from error


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _instruction(row: Row) -> str:
    extra = row.get("input")
    return _text(row, "instruction") + (f"\n\n{extra}" if isinstance(extra, str) and extra.strip() else "")


def _copa(premise: str, question: str) -> str:
    asked = {"cause": "What was the cause?", "effect": "What happened as a result?"}.get(question, question)
    return f"{premise} {asked}"


def _answer(answer: Any, context: str) -> dict[str, Any]:
    if isinstance(answer, str):
        answer = {"text": answer}
    if not isinstance(answer, Mapping) or not isinstance(answer.get("text"), str):
        raise Unusable("an answer must be a text, or an object with text and answer_start")
    text, start = answer["text"], answer.get("answer_start")
    if start is None:
        start = context.find(text)
    if not text or start < 0 or context[start : start + len(text)] != text:
        there = context[max(start, 0) : max(start, 0) + len(text)]
        raise Unusable(f"answer {text!r} is not in the context where it should be ({there!r} is at {start})")
    return {"text": text, "answer_start": start}


def _choice(answer: Any, choices: list[str], names: Any) -> int:
    if isinstance(answer, str):
        answer = answer.strip()
        if isinstance(names, list) and answer in names:
            return names.index(answer)
        if answer in choices:
            return choices.index(answer)
        if len(answer) == 1 and "A" <= answer.upper() <= "Z":
            answer = ord(answer.upper()) - ord("A")
        elif answer.isdecimal():
            answer = int(answer)
    if answer is None or answer == "" or answer == -1:
        raise Unusable("no answer", "empty")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(choices):
        raise Unusable(f"answer {answer!r} names none of the {len(choices)} choices (they count from 0)")
    return answer
