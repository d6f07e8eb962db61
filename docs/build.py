"""Write what the docs say about the code from the code. `--check` only compares.

reference/       every verb and every method, with every option: one annotated field is the option on the command
                 line, the key in a recipe, and the row here; a drawing of where each method acts
sites-*.svg      the picture of the README (picture.py)
<!-- name -->    tables inside written pages (tables.py)
"""

import inspect
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path

import picture
import tables

from graft import catalogue, verbs
from graft.drawing import svg
from graft.drawing.svg import COLORS
from graft.errors import GraftError
from graft.files import write_text
from graft.method import find
from graft.options.command import positional
from graft.options.fields import Field, fields_of, type_name
from graft.portrait import drawn, formula, properties
from graft.portrait.recipe import recipe
from graft.portrait.written import description

DOCS = Path(__file__).parent
REFERENCE = DOCS / "reference"
DRAWINGS = REFERENCE / "methods"
WRITTEN = "<!-- Written by `make docs` from the source; do not edit. -->\n\n"


def pages() -> dict[Path, str]:
    """Everything that is written from the code: the reference, the pictures, and pages with tables in them."""
    drawings = {DRAWINGS / f"{name}.svg": made for name in catalogue.own() if (made := _drawing(name))}
    made = {
        REFERENCE / "verbs.md": _verbs(),
        REFERENCE / "methods.md": _methods(),
        REFERENCE / "structure.md": _structure(),
    }
    made |= {DOCS / f"sites-{theme}.svg": picture.picture(theme) for theme in COLORS} | drawings
    return made | {page: _filled(page) for page in (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")))}


@cache
def _drawing(name: str) -> str:
    """Where a method acts; nothing where the model that is drawn cannot take it."""
    try:
        return svg(drawn(find(name)()), f"Where {find(name).__name__} acts in a transformer block")
    except GraftError:
        return ""


def _filled(page: Path) -> str:
    """A written page with its tables as they are now."""

    def table(match: re.Match[str]) -> str:
        made = tables.TABLES[match[1]]().strip()
        return f"<!-- {match[1]} -->\n" + (f"\n{made}\n\n" if made else "") + f"<!-- /{match[1]} -->"

    names = "|".join(tables.TABLES)
    text = page.read_text(encoding="utf-8")
    return re.sub(rf"<!-- ({names}) -->\n.*?<!-- /\1 -->", table, text, flags=re.DOTALL)


def _verbs() -> str:
    text = (
        WRITTEN + "# Verbs\n\n`graft VERB [recipe.yaml] [--option value]`, or `graft.VERB(option=value)` in Python.\n"
    )
    for name in catalogue.verbs():
        options = verbs.module(name).Options
        fields = fields_of(options)
        usage = f"graft {name}{positional(fields)}"
        text += f"\n## {name}\n\n{inspect.getdoc(options)}\n\n```\n{usage}\n```\n" + _table(fields)
    return text


def _methods() -> str:
    text = WRITTEN + "# Methods\n\n`--method NAME --NAME.option value`, or `graft.CLASS(option=value)` in Python. "
    text += "`graft methods NAME` shows the same, and counts on your model. What trains is counted on a decoder of L "
    text += "layers, width d, feed-forward width f and H heads.\n"
    for name in catalogue.own():
        method = find(name)
        text += f"\n## {name}\n\n`graft.{method.__name__}` · {method.family}"
        text += f" · trains {trains}\n" if (trains := formula(method())) else "\n"
        text += f"\n    {line}\n" if (line := recipe(method())) else ""
        text += f"\n![Where {method.__name__} acts](methods/{name}.svg)\n" if _drawing(name) else ""
        text += f"\n{_fenced(description(method))}\n\n{inspect.getdoc(method)}\n" + _table(fields_of(method))
    return text


def _structure() -> str:
    """The structural properties of every method, a row each."""
    text = WRITTEN + "# Structure\n\nThe properties of Sabry & Belz 2023 (PEFT-Ref, [arXiv 2304.12410]"
    text += "(https://arxiv.org/abs/2304.12410)), found by looking at each method's sites and verbs and by running its "
    text += (
        "parts in a small decoder. *Across tokens* is theirs *self-attention* and all else that reads other tokens; "
    )
    text += "*new values* are those of methods that give parameters of the base other values.\n"
    rows: list[dict[str, str]] = []
    for name in catalogue.own():
        with suppress(GraftError):
            rows.append({"": f"[{find(name).__name__}](methods.md#{name})", **properties(find(name)())})
    titles = list(dict.fromkeys(title for row in rows for title in row))
    text += f"\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n"
    return text + "".join(f"| {' | '.join(row.get(title, '') for title in titles)} |\n" for row in rows)


def _fenced(text: str | None) -> str:
    """Keep the line breaks of a method's own description: its formulas are laid out by hand."""
    return f"```\n{text}\n```"


def _table(fields: Iterable[Field]) -> str:
    rows = [
        f"| `{field.name}` | {type_name(field.type)} | {'required' if field.required else f'`{_shown(field)}`'} "
        f"| {field.help.replace('|', chr(92) + '|')} |"
        for field in fields
    ]
    return "\n| option | type | default | |\n|---|---|---|---|\n" + "\n".join(rows) + "\n" if rows else ""


def _shown(field: Field) -> str:
    if field.default is None or field.default in ((), {}):
        return "none"
    if isinstance(field.default, tuple):
        return " ".join(map(str, field.default))
    return str(field.default) if field.default != "" else '""'


def main(arguments: list[str]) -> int:
    """Write the pages, or with --check say which are out of step."""
    made = pages()
    left = [path for path in DRAWINGS.glob("*.svg") if path not in made]
    if "--check" in arguments:
        stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
        for path in (*stale, *left):
            print(f"{path} is out of step with the code: run `make docs`.", file=sys.stderr)
        return 1 if stale or left else 0
    for path in left:
        path.unlink()
    for path, text in made.items():
        write_text(path, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
