"""What is written in a method's file: its docstring with formulas and source, and its hyperparameters."""

import importlib
import inspect
import re
from dataclasses import dataclass, fields
from typing import Any, get_args, get_type_hints

from graft.method import Method

PAPER = re.compile(r"\(([^()]*\b\d{4}\.\d{4,5}\b[^()]*)\)")


@dataclass(frozen=True)
class Setting:
    """One hyperparameter: its name (in a sum behind its method's), its value here, its default, and what it means."""

    name: str
    value: Any
    default: Any
    said: str


def description(kind: type[Method]) -> str:
    """The docstring of a method's file."""
    return inspect.getdoc(importlib.import_module(kind.__module__)) or ""


def formulas(text: str) -> list[str]:
    """The formulas of a description: its lines that are set in."""
    return [line.strip() for line in text.splitlines() if line.startswith("    ")]


def source(text: str) -> str:
    """The papers that the first paragraph of a description names."""
    return "; ".join(PAPER.findall(text.partition("\n\n")[0].replace("\n", " ")))


def settings(method: Method) -> list[Setting]:
    """The hyperparameters of all terms."""
    terms, found = method.methods(), []
    terms = (method,) if fields(method) and type(method).__module__ != Method.__module__ else terms
    for term in terms:
        hints = get_type_hints(type(term), include_extras=True)
        prefix = f"{term.slug()}." if len(terms) > 1 else ""
        for field in fields(term):
            said = next((word for word in get_args(hints[field.name])[1:] if isinstance(word, str)), "")
            found.append(Setting(prefix + field.name, getattr(term, field.name), field.default, said))
    return found
