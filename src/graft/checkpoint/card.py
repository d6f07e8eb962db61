"""The model card of an adapter: README.md, in the form the Hugging Face Hub reads."""

import json
from collections.abc import Mapping
from typing import Any

from graft.checkpoint.record import Record


def card(record: Record) -> str:
    """The text of README.md: what was adapted, how, what it scored, and how to use it."""
    base, methods = record.base.get("id") or "", _methods(record)
    front = ["---", "library_name: graft", "tags:", "- graft", *(f"- {json.dumps(tag)}" for tag in methods)]
    if base:
        front.insert(1, f"base_model: {json.dumps(base)}")
    kind = _cell(base or record.base["fingerprint"]["class"])
    lines = [*front, "---", "", f"# {record.name}", ""]
    lines += [f"An adapter ({' + '.join(methods)}) for `{kind}`, made with graft.", "", "## Use", ""]
    lines += ["```python", "import graft", "from transformers import AutoModel  # or the class of your task", ""]
    lines += [f"model = AutoModel.from_pretrained({base or 'path to the base'!r})"]
    lines += ['graft.load(model, "path to this folder")', "```", ""]
    theirs = "`adapter_config.json` and `adapter_model.safetensors` are the same adapter for Hugging Face PEFT."
    lines += [theirs if record.peft == "" else f"Not in Hugging Face PEFT's format: {record.peft}", ""]
    lines += _table("Method", _flat(record.method))
    reached = {f"sites: {role}": number for role, number in record.coverage.items()}
    lines += _table("Size", {**reached, **record.counts})
    if record.extra:
        lines += _table("Training and results", _flat(record.extra))
    lines += _table("Versions", record.versions)
    return "\n".join(lines).rstrip() + "\n"


def _methods(record: Record) -> list[str]:
    return [term["method"] for term in record.method.get("sum", [record.method])]


def _table(title: str, values: Mapping[str, Any]) -> list[str]:
    rows = [f"| {_cell(key)} | {_cell(value)} |" for key, value in values.items()]
    return [f"## {title}", "", "| | |", "|---|---|", *rows, ""]


def _cell(value: Any) -> str:
    """One cell: no line breaks, no bars, nothing that reads as markup."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if type(value) is int:
        text = f"{value:,}"
    for sign, instead in (("\n", " "), ("|", "\\|"), ("<", "&lt;"), ("`", "'")):
        text = text.replace(sign, instead)
    return text if len(text) <= 200 else text[:199] + "…"


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested maps as dotted keys; a sum of methods as its terms."""
    found: dict[str, Any] = {}
    for key, value in data.items():
        inner = dict(enumerate(value)) if key == "sum" else value
        if isinstance(inner, Mapping):
            found |= _flat({str(k): v for k, v in inner.items()}, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found
