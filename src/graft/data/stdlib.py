"""A real code-summarization set from the user's own standard library: a function without its docstring → what it does.

Rows are {"prompt": source, "completion": summary, "module": ..., "name": ...}. A top-level module is in one split only,
and of functions that nearly repeat each other (`graft.data.duplicates`) one is kept, so that nothing leaks.
"""

import ast
import hashlib
import json
import re
import sysconfig
import textwrap
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from graft.data.duplicates import clusters, normalize
from graft.errors import BadInput
from graft.files import write_text

SPLITS = ("train", "validation", "test")
_MEASURED = 0.09
_SKIPPED = frozenset(
    {"test", "tests", "site-packages", "dist-packages", "__pycache__", "idle_test", "turtledemo", "pydoc_data"}
)
_SENTENCE = re.compile(r"(.+?[.!?])(\s+[A-Z`\"'(]|$)", re.S)
_ENGLISH = re.compile(r"[A-Z][\x20-\x7e]*$")


@dataclass(frozen=True)
class Function:
    """One row: `prompt` is a function's source without its docstring, `completion` the docstring's summary."""

    prompt: str
    completion: str
    module: str
    name: str


def build(folder: str | Path, seed: int = 0, longest: int = 1000) -> dict[str, int]:
    """Write train.jsonl, validation.jsonl and test.jsonl into `folder`; return how many rows each has.

    longest: characters of a prompt, longer functions are left out. The same Python and seed give the same files.
    Raises BadInput when this Python comes without the source of its standard library.
    """
    splits = split(functions(longest), seed)
    if not all(splits.values()):
        raise BadInput(
            f"too few documented functions under {sysconfig.get_path('stdlib')}: "
            "this Python comes without the source of its library. Use another Python."
        )
    for name, rows in splits.items():
        write_text(Path(folder) / f"{name}.jsonl", "".join(json.dumps(asdict(row)) + "\n" for row in rows))
    return {name: len(rows) for name, rows in splits.items()}


def functions(longest: int = 1000, library: str | Path | None = None) -> list[Function]:
    """The usable documented functions of a folder of Python source (default: the standard library), in a fixed order.

    Left out: tests; functions whose summary is not a plain English sentence of 3 to 24 words, is longer than 120
    characters or stands in the code as well; all but the first of functions that nearly repeat each other.
    """
    root = Path(library or sysconfig.get_path("stdlib"))
    found = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not _SKIPPED & set(parts):
            module = ".".join(parts).removesuffix(".__init__")
            found += [row for row in _documented(path, module) if len(row.prompt) <= longest and _usable(row)]
    return [found[group[0]] for group in clusters([normalize(row.prompt) for row in found])]


def split(rows: list[Function], seed: int = 0) -> dict[str, list[Function]]:
    """Rows by split, whole top-level modules each (`_x` counts as `x`): about 9 % test, 9 % validation, the rest train.

    Modules are taken in the order of a seeded hash; one that has more than a sixtieth of all rows goes to train, so
    that the measured splits are of many kinds.
    """
    modules: dict[str, list[Function]] = {}
    for row in rows:
        modules.setdefault(row.module.split(".")[0].lstrip("_"), []).append(row)
    splits: dict[str, list[Function]] = {name: [] for name in SPLITS}
    for name in sorted(modules, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest()):
        small = len(modules[name]) <= max(1, len(rows) / 60)
        wanting = [side for side in ("test", "validation") if len(splits[side]) < _MEASURED * len(rows)]
        splits[wanting[0] if small and wanting else "train"] += modules[name]
    return splits


def summary(docstring: str) -> str | None:
    """The first sentence of a docstring, on one line; None when the first line is no whole one and nothing ends it."""
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    first_line = docstring.strip().split("\n")[0].strip()
    sentence = _SENTENCE.match(paragraph)
    if sentence:
        return sentence.group(1)
    return first_line if paragraph == first_line else None


def _documented(path: Path, module: str) -> Iterator[Function]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd escapes in old modules are not this program's concern
        try:
            source = path.read_text(encoding="utf-8")
            tree = ast.parse(source)
        except (SyntaxError, UnicodeDecodeError):  # the library keeps a few files that are broken on purpose
            return
    lines = source.split("\n")
    for name, node in _walk(tree, ""):
        docstring, text = ast.get_docstring(node), _without_docstring(node, lines)
        line = summary(docstring) if docstring else None
        if line and text:
            yield Function(text, line, module, name)


def _walk(node: ast.AST, outer: str) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function below a node with its qualified name, in the order of the source."""
    statements = [child for field in ("body", "orelse", "handlers", "finalbody") for child in getattr(node, field, [])]
    for child in statements:
        name = outer
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{outer}.{child.name}".lstrip(".")
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield name, child
        yield from _walk(child, name)


def _without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> str | None:
    """The source of a function without its docstring; None when that leaves nothing, or they share a line."""
    if len(node.body) < 2:
        return None
    docstring, following = node.body[0], node.body[1]
    first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
    last = docstring.end_lineno or docstring.lineno
    before, after = lines[first - 1 : docstring.lineno - 1], lines[last : node.end_lineno]
    if following.lineno == last or not before:
        return None
    while after and not after[0].strip():
        after = after[1:]
    text = textwrap.dedent("\n".join([*before, *after])).rstrip()
    return None if text[0].isspace() else text  # a string at the margin keeps the function from moving there


def _usable(row: Function) -> bool:
    words = row.completion.split()
    plain = sum(c.isalpha() or c == " " for c in row.completion) >= 0.8 * len(row.completion)
    apart = row.completion.rstrip(".").lower() not in row.prompt.lower()
    return bool(
        3 <= len(words) <= 24 and len(row.completion) <= 120 and plain and apart and _ENGLISH.match(row.completion)
    )
