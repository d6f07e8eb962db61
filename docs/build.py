"""Write what the docs say about the code from the code. `--check` only compares.

reference/       every verb and every method, with every option: one annotated field is the option on the command
                 line, the key in a recipe, and the row here
sites-*.svg      the picture of the README (picture.py)
<!-- name -->    tables inside written pages (tables.py)
"""

import importlib
import inspect
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import picture
import tables

from graft import catalogue, verbs
from graft.files import write_text
from graft.options.command import positional
from graft.options.fields import Field, fields_of, type_name

DOCS = Path(__file__).parent
REFERENCE = DOCS / "reference"
WRITTEN = "<!-- Written by `make docs` from the source; do not edit. -->\n\n"


def pages() -> dict[Path, str]:
    """Everything that is written from the code: the reference, the picture, and pages with tables in them."""
    made = {REFERENCE / "verbs.md": _verbs(), REFERENCE / "methods.md": _methods()}
    made |= {DOCS / f"sites-{theme}.svg": picture.picture(theme) for theme in picture.COLORS}
    return made | {page: _filled(page) for page in (DOCS.parent / "README.md", *sorted(DOCS.glob("*.md")))}


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
    text = WRITTEN + "# Methods\n\n`--method NAME --NAME.option value`, or `graft.CLASS(option=value)` in Python.\n"
    for entry in catalogue.methods().values():
        module = importlib.import_module(f"graft.methods.{entry.name}")
        method = getattr(module, entry.class_name)
        text += (
            f"\n## {entry.name}\n\n`graft.{entry.class_name}` · {method.family}\n\n{_fenced(inspect.getdoc(module))}\n"
        )
        text += f"\n{inspect.getdoc(method)}\n" + _table(fields_of(method))
    return text


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
    if "--check" in arguments:
        stale = [path for path, text in made.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
        for path in stale:
            print(f"{path} is out of step with the code: run `make docs`.", file=sys.stderr)
        return 1 if stale else 0
    for path, text in made.items():
        write_text(path, text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
