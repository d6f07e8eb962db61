"""`--columns "text=sentence,label=polarity"`: graft's names for the user's columns, parsed once."""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence

from graft.data.rows import Row
from graft.errors import BadInput

# A name is written as it is, or in double quotes when it holds a comma, an equals sign, a plus or outer white space.
_NAME = r'\s*("(?:[^"\\]|\\.)*"|[^",=+]+?)\s*'
_PAIR = re.compile(rf"{_NAME}={_NAME}((?:\+{_NAME})*)(?:,|$)")
_MORE = re.compile(rf"\+{_NAME}(?=\+|$)")

ROLES = (
    "text", "text_pair", "label", "label_text", "tokens", "tags", "prompt", "completion", "references", "messages",
    "instruction", "input", "output", "conversations", "question", "context", "answers", "choices", "answer",
    "chosen", "rejected", "task",
)  # fmt: skip

Columns = Mapping[str, tuple[str, ...]]


def parse_columns(text: str | Mapping[str, str | Sequence[str]] | None) -> dict[str, tuple[str, ...]]:
    """Parse `role=column,role=column`; `choices=a+b+c` gathers several columns into one list.

    Names with `, = + "` in them are put in double quotes. A mapping from role to column(s) is taken too.
    Raises BadInput for text that does not parse, and for an unknown or repeated role, with the nearest known one.
    """
    if text is None:
        return {}
    if isinstance(text, Mapping):
        pairs = [(role, (columns,) if isinstance(columns, str) else tuple(columns)) for role, columns in text.items()]
    else:
        pairs = _pairs(text)
    roles = [role for role, _ in pairs]
    problems = [f"{role!r} is given twice" for role in dict.fromkeys(roles) if roles.count(role) > 1]
    problems += [f"{role!r} is no column that graft knows{nearest(role, ROLES)}" for role in roles if role not in ROLES]
    if problems:
        raise BadInput(f"columns: {'; '.join(problems)}. Known are {', '.join(ROLES)}.")
    return dict(pairs)


def format_columns(columns: Columns) -> str:
    """The text that `parse_columns` reads back as `columns`."""
    return ",".join(f"{role}={'+'.join(map(_quoted, names))}" for role, names in columns.items())


def apply_columns(rows: Iterable[Row], columns: Columns) -> list[Row]:
    """Rows with the columns under graft's names as well. A role whose column a row lacks is left out of that row."""
    renamed = []
    for row in rows:
        cells = dict(row)
        for role, names in columns.items():
            if all(name in row for name in names):
                cells[role] = row[names[0]] if len(names) == 1 else [row[name] for name in names]
        renamed.append(Row(cells, row.where))
    return renamed


def check_columns(columns: Columns, found: Sequence[str]) -> None:
    """Raise BadInput when the mapping asks for a column that no row has."""
    problems = [
        f"{role}={name}: no row has a column {name!r}{nearest(name, found)}"
        for role, names in columns.items()
        for name in names
        if name not in found
    ]
    if problems:
        raise BadInput(f"columns: {'; '.join(problems)}. The columns are {', '.join(found)}.")


def nearest(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` for the nearest known name, or nothing: to stand anywhere in a sentence."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _pairs(text: str) -> list[tuple[str, tuple[str, ...]]]:
    pairs: list[tuple[str, tuple[str, ...]]] = []
    at = 0
    while at < len(text) or not pairs:
        match = _PAIR.match(text, at)
        if not match:
            raise BadInput(
                f"columns: cannot read {text[at:]!r} in {text!r}. Write role=column pairs with commas between, "
                'as in "text=sentence,label=polarity"; a name with , = + in it goes in double quotes.'
            )
        role, first, more = _plain(match[1]), _plain(match[2]), match[3]
        pairs.append((role, (first, *(_plain(name) for name in _MORE.findall(more)))))
        at = match.end()
        if at == len(text) and match[0].endswith(","):
            break
    return pairs


def _plain(name: str) -> str:
    return re.sub(r"\\(.)", r"\1", name[1:-1], flags=re.DOTALL) if name.startswith('"') else name


def _quoted(name: str) -> str:
    if name and name == name.strip() and not re.search(r'[",=+\\]', name):
        return name
    return '"' + re.sub(r'(["\\])', r"\\\1", name) + '"'
