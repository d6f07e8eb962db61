"""`load`: from any source to three lists of rows of one kind, ready for a task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from graft.data.canonical import CELLS, Unusable, task_cells
from graft.data.columns import apply_columns, check_columns, format_columns, parse_columns
from graft.data.detection import Match, detect
from graft.data.formats.table import Table
from graft.data.labels import as_names, as_numbers, is_regression
from graft.data.rows import Complaint, Row, check_allowances, content_hash, raise_complaints
from graft.data.sources import read_source
from graft.data.splits import SPLITS, Fractions, check_fractions, split_rows
from graft.data.templates import columns_of, read_template
from graft.errors import BadInput, Refused

NAME_COLUMNS = ("label_text", "label_name", "text_label")


@dataclass(frozen=True)
class DataSets:
    """Rows by split (a split that there is none of is empty), and what they are.

    `kind`: the kind of rows as read, `text,label`; `task`: the name of the task they are for; `template`: the prompt
    template, where one was given; `hash`: SHA-256 of all rows in their splits; `notes`: what a user should know.
    """

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]
    kind: str
    task: str
    hash: str
    template: str | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def splits(self) -> dict[str, tuple[Row, ...]]:
        """The splits by name, the empty ones left out."""
        return {split: rows for split in SPLITS if (rows := getattr(self, split))}


def load(
    source: Any,
    columns: str | Mapping[str, str | Sequence[str]] | None = None,
    task: str | None = None,
    template: str | None = None,
    splits: Sequence[float] | str = (0.8, 0.1, 0.1),
    seed: int = 0,
    allow: Sequence[str] = (),
) -> DataSets:
    """Read rows, tell their kind, put them in canonical form and in splits.

    `source`: see `graft.data.sources.read_source`. `columns`: see `parse_columns`. `task`: overrides the task of the
    kind. `template`: text or file of a prompt template. `splits`: shares of train, validation, test for a source
    without splits (a missing validation is carved from train in the same proportion), or the name of the split that
    all rows go to. `allow`: complaints to live with, see `ALLOWANCES`.

    Raises BadInput with every row that cannot be used, by file and line; Refused for preferences (chosen, rejected).
    """
    allow = check_allowances(allow)
    wanted = _check_splits(splits)
    mapping = parse_columns(columns)
    template = None if template is None else read_template(template)
    tables, complaints, notes = _read(source)
    found = list(dict.fromkeys(name for table in tables.values() for row in table.rows for name in row))
    check_columns(mapping, found)
    if template:
        _check_template(template, [*found, *mapping])
    matches = _detect(tables, mapping, task, template)
    kind = next(iter(matches.values())).kind
    rows = {split: apply_columns(table.rows, matches[split].columns) for split, table in tables.items()}
    chosen = _task(kind.tasks, task, rows, matches)
    rows, found_wrong = _canonical(rows, tables, matches, chosen)
    raise_complaints([*complaints, *found_wrong], allow)
    notes += [f"{len(complaints) + len(found_wrong)} rows dropped as allowed"] if complaints or found_wrong else []
    notes += _read_as(kind.name, matches)
    parts, more = _split(rows, wanted, seed)
    if chosen == "generation":
        parts["train"], expanded = _one_each(parts["train"])
        notes += expanded
    if not any(parts.values()):
        raise BadInput(f"{source}: there are no rows that can be used.")
    train, validation, test = (tuple(parts[split]) for split in SPLITS)
    return DataSets(train, validation, test, kind.name, chosen, content_hash(parts), template, (*notes, *more))


def _read(source: Any) -> tuple[dict[str, Table], list[Complaint], list[str]]:
    """The tables that have rows, by split, and what reading complained of and noted."""
    tables = read_source(source)
    complaints = [complaint for table in tables.values() for complaint in table.complaints]
    notes = [note for table in tables.values() for note in table.notes]
    tables = {split: table for split, table in tables.items() if table.rows}
    if not tables:
        raise_complaints(complaints)
        raise BadInput(f"{source}: there are no rows.")
    return tables, complaints, notes


def _check_splits(splits: Sequence[float] | str) -> Fractions | str:
    if isinstance(splits, str):
        if splits not in SPLITS:
            raise BadInput(f"splits: {splits!r} is none of {', '.join(SPLITS)}, nor three shares.")
        return splits
    return check_fractions(splits)


def _check_template(template: str, found: Sequence[str]) -> None:
    if not columns_of(template):
        raise BadInput("template: it uses no column, so every prompt would be the same. Columns go in {{ }}: "
                       + ", ".join(f"{{{{ {name} }}}}" for name in found))  # fmt: skip


def _detect(
    tables: dict[str, Table], mapping: dict[str, tuple[str, ...]], task: str | None, template: str | None
) -> dict[str, Match]:
    """The kind of each split, from its own columns: test files often have `references` where train has one."""
    matches = {}
    for split, table in tables.items():
        found = list(dict.fromkeys(name for row in table.rows for name in row))
        present = {role: names for role, names in mapping.items() if set(names) <= set(found)}
        matches[split] = detect(found, present, task, template is not None)
        if "label" in matches[split].columns and "label_text" not in mapping:
            names = [name for name in NAME_COLUMNS if name in found]
            extra = {"label_text": (names[0],)} if names else {}
            matches[split] = Match(matches[split].kind, {**matches[split].columns, **extra})
    kinds = {match.kind.name for match in matches.values()}
    if len(kinds) > 1:
        each = ", ".join(f"{split} {match.kind.name}" for split, match in matches.items())
        raise BadInput(f"the splits have different kinds of rows: {each}. Map their columns with --columns.")
    if kinds == {"prompt,chosen,rejected"}:
        raise Refused("rows of prompt,chosen,rejected: learning from preferences is not there yet. For ordinary tuning "
                      'on the chosen answers write --columns "prompt=prompt,completion=chosen".')  # fmt: skip
    return matches


def _task(tasks: tuple[str, ...], task: str | None, rows: dict[str, list[Row]], matches: dict[str, Match]) -> str:
    if task is not None or tasks[0] != "classification":
        return task or tasks[0]
    column = next(iter(matches.values())).columns["label"][0]
    everything = [row for part in rows.values() for row in part]
    return "regression" if is_regression(everything, column) else "classification"


def _canonical(
    rows: dict[str, list[Row]], tables: dict[str, Table], matches: dict[str, Match], task: str
) -> tuple[dict[str, list[Row]], list[Complaint]]:
    complaints: list[Complaint] = []
    good: dict[str, list[Row]] = {}
    for split, part in rows.items():
        good[split] = []
        needed = matches[split].columns
        for row in part:
            missing = [role for role in needed if role not in row and role not in ("label_text", "references")]
            try:
                if missing:
                    raise Unusable(f"no column {', '.join(missing)}", "empty")
                good[split].append(row.having(**CELLS[task](row), **task_cells(row)))
            except Unusable as problem:
                complaints.append(Complaint(problem.check, row.where, str(problem)))
    if task == "regression":
        numbers = {split: as_numbers(part) for split, part in good.items()}
        return ({split: part for split, (part, _) in numbers.items()},
                [*complaints, *(wrong for _, part in numbers.values() for wrong in part)])  # fmt: skip
    if task in ("classification", "verbalized"):
        named, more = as_names(good, _names(tables, matches, "label"))
        return named, [*complaints, *more]
    if task == "tagging":
        names = _names(tables, matches, "tags")
        good = {split: [_named_tags(row, names) for row in part] for split, part in good.items()}
    return good, complaints


def _names(tables: dict[str, Table], matches: dict[str, Match], role: str) -> list[str]:
    """The names of numbered classes, where the data set describes them."""
    for split, table in tables.items():
        column = matches[split].columns[role][0]
        if column in table.names:
            return table.names[column]
    return []


def _named_tags(row: Row, names: list[str]) -> Row:
    tags = [names[tag] if isinstance(tag, int) and 0 <= tag < len(names) else str(tag) for tag in row["tags"]]
    return row.having(tags=tags)


def _read_as(kind: str, matches: dict[str, Match]) -> list[str]:
    """A note for each way in which columns were renamed."""
    texts: dict[str, list[str]] = {}
    for split, match in matches.items():
        renamed = {role: names for role, names in match.columns.items() if names != (role,)}
        if renamed:
            texts.setdefault(format_columns(renamed), []).append(split or "all")
    return [f"read as {kind} ({', '.join(splits)}): {text}" for text, splits in texts.items()]


def _split(rows: dict[str, list[Row]], wanted: Fractions | str, seed: int) -> tuple[dict[str, list[Row]], list[str]]:
    parts: dict[str, list[Row]] = {split: rows.get(split, []) for split in SPLITS}
    if isinstance(wanted, str):
        if list(rows) != [""]:
            raise BadInput(f"splits: {wanted!r} is for a source without splits; this one has {', '.join(rows)}.")
        return {**parts, wanted: rows[""]}, []
    if "" in rows:
        parts = split_rows(rows[""], wanted, seed)
        sizes = ", ".join(f"{split} {len(parts[split])}" for split in SPLITS)
        return parts, [f"split by content (seed {seed}), near-duplicates on one side: {sizes}"]
    if parts["train"] and not parts["validation"] and wanted[1]:
        share = wanted[1] / (wanted[0] + wanted[1])
        halves = split_rows(parts["train"], (1 - share, share, 0.0), seed)
        parts |= {"train": halves["train"], "validation": halves["validation"]}
        return parts, [f"validation: {len(parts['validation'])} rows carved from train by content (seed {seed})"]
    return parts, []


def _one_each(rows: list[Row]) -> tuple[list[Row], list[str]]:
    """Train rows with one completion each: a row with several references becomes as many rows."""
    expanded = [row.having(completion=text, references=[text]) for row in rows for text in row["references"]]
    if len(expanded) == len(rows):
        return rows, []
    return expanded, [f"train: {len(rows)} rows with several references became {len(expanded)} with one each"]
