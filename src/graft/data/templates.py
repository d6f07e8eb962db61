"""Prompt templates: Jinja in a sandbox, where a template can neither reach Python nor use up time or memory."""

import time
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError, meta, nodes
from jinja2.visitor import NodeTransformer

from graft.data.columns import nearest
from graft.data.sandbox import LARGEST, Sandbox, TooMuch
from graft.errors import BadInput, sentence

DEFAULT = "{{ prompt }}"
SECONDS = 5.0


def read_template(text: str) -> str:
    """A template given as text, or as the path of a file (one final line feed is dropped). Raises BadInput."""
    if "{" in text or "\n" in text:
        return text
    path = Path(text)
    try:
        content = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise BadInput(
            f"template: {text!r} has no column in {{{{ }}}} and is no file that can be read: {error.strerror or error}."
        ) from error
    except UnicodeDecodeError as error:
        raise BadInput(f"template: {text} is not UTF-8.") from error
    return content.removesuffix("\n")


def columns_of(source: str) -> set[str]:
    """The columns that a template reads. Raises BadInput when it does not parse."""
    return meta.find_undeclared_variables(_parse(source)) - set(_environment().globals)


def render(source: str, row: Mapping[str, Any]) -> str:
    """Render a row. Raises BadInput naming the template's line, and the missing column where that is the cause.

    Bounds: 5 seconds, a million characters.
    """
    started = time.monotonic()

    def tick() -> str:
        if time.monotonic() - started > SECONDS:
            raise TooMuch(f"rendering takes more than {SECONDS:g} seconds")
        return ""

    template = _compiled(source)
    pieces, length = [], 0
    try:
        for piece in template.generate({**row, "tick__": tick}):
            pieces.append(piece)
            length += len(piece)
            if length > LARGEST:
                raise TooMuch(f"the text is longer than {LARGEST:,} characters")
            tick()
    except UndefinedError as error:
        raise BadInput(_missing(error, source, row)) from error
    except (TemplateError, TooMuch, ArithmeticError, TypeError, ValueError, LookupError, RecursionError) as error:
        raise BadInput(f"template, line {_line(error)}: {sentence(error)}") from error
    return "".join(pieces)


# Tags that capture text (which could double it line by line), recurse, or reach other templates.
_REFUSED = (
    nodes.Macro, nodes.CallBlock, nodes.AssignBlock, nodes.FilterBlock, nodes.Block,
    nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends,
)  # fmt: skip


class _Guards(NodeTransformer):
    """Puts a look at the clock in every loop, and `~` under the sandbox's limits."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        call = nodes.Call(nodes.Name("tick__", "load"), [], [], None, None)
        node.body.insert(0, nodes.Output([call]).set_lineno(node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "join", [], [], None, None, lineno=node.lineno)


@lru_cache(maxsize=1)
def _environment() -> Sandbox:
    return Sandbox()


@lru_cache(maxsize=64)
def _compiled(source: str) -> Any:
    environment = _environment()
    tree = _Guards().visit(_parse(source))
    tree.set_environment(environment)
    try:
        code = environment.compile(tree, "template", "<template>")
    except TemplateError as error:
        raise BadInput(f"template: {sentence(error)}") from error
    return environment.template_class.from_code(environment, code, environment.make_globals(None))


def _parse(source: str) -> nodes.Template:
    try:
        tree = _environment().parse(source, "template", "<template>")
    except TemplateSyntaxError as error:
        raise BadInput(f"template, line {error.lineno}: {error.message}") from error
    for node in tree.find_all((*_REFUSED, nodes.For)):
        if not isinstance(node, nodes.For) or node.recursive:
            tag = "recursive for" if isinstance(node, nodes.For) else type(node).__name__.lower()
            raise BadInput(f"template, line {node.lineno}: {tag} is not for prompt templates; use if, for and set.")
    return tree


def _line(error: BaseException) -> int | str:
    line: int | str = "unknown"
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _missing(error: UndefinedError, source: str, row: Mapping[str, Any]) -> str:
    missing = sorted(columns_of(source) - set(row))
    hint = "".join(nearest(name, row) for name in missing[:1])
    return f"template, line {_line(error)}: {error.message}{hint}. The columns are {', '.join(row)}."
