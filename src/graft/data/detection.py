"""Which kind of rows these are, by the columns found, the mapping and the task given. In doubt it asks."""

from collections.abc import Sequence
from dataclasses import dataclass

from graft.data.columns import Columns, format_columns, nearest
from graft.data.kinds import KINDS, Alternative, Kind
from graft.errors import BadInput


@dataclass(frozen=True, slots=True)
class Match:
    """A kind and where its columns come from: role -> the column(s)."""

    kind: Kind
    columns: Columns

    @property
    def used(self) -> frozenset[str]:
        """The columns that this reading of the rows uses."""
        return frozenset(name for names in self.columns.values() for name in names)

    @property
    def own(self) -> int:
        """How many roles are found under graft's own name."""
        return sum(names == (role,) for role, names in self.columns.items())


# Roles that several kinds may have beside the columns that make them.
OPTIONAL = {"label_text", "references", "input", "task"}
TASKS = tuple(dict.fromkeys(task for kind in KINDS for task in kind.tasks if task != "preference"))


def detect(found: Sequence[str], columns: Columns, task: str | None = None, template: bool = False) -> Match:
    """The one kind that fits. `found` are the columns there are, `columns` the mapping given by the user.

    A mapping settles its roles; a kind without a role that was mapped does not fit.

    With a template, rows of prompts need no prompt column. Raises BadInput when no kind fits or several do, listing
    the columns found, the kinds known, and the `--columns` to write.
    """
    if task is not None and task not in TASKS:
        raise BadInput(f"task: no task {task!r}{nearest(task, TASKS)}. Known are {', '.join(TASKS)}.")
    if template and task is None:
        task = "generation"
    mapped = set(columns) - OPTIONAL
    kinds = [kind for kind in KINDS if task is None or task in kind.tasks]
    have = dict.fromkeys(found)
    matches = [match for kind in kinds for match in _matches(kind, have, columns, template)]
    matches = [match for match in matches if mapped <= {role for role, _ in match.kind.alternatives[0]}]
    # A reading that uses fewer of the columns of another one explains less: `text` next to `label` is no plain text.
    best = [match for match in matches if not any(match.used < other.used for other in matches)]
    if any(not match.kind.last_resort for match in best):
        best = [match for match in best if not match.kind.last_resort]
    if len({match.kind.name for match in best}) == 1:
        # Own names before aliases: `label` is the label, whatever `topic` and `category` are.
        best = [match for match in best if match.own == max(other.own for other in best)]
    if len(best) == 1:
        return best[0]
    raise BadInput(_none(found, kinds, task) if not best else _several(found, best, task))


def _matches(kind: Kind, have: dict[str, None], columns: Columns, template: bool) -> list[Match]:
    """Every reading of the columns as this kind; only the one under graft's own names where there is that one."""
    matches = []
    for number, alternative in enumerate(kind.alternatives):
        if template and kind.tasks == ("generation",):
            alternative = tuple(pair for pair in alternative if pair[0] != "prompt")
        sources = _sources(alternative, have, columns)
        if sources is not None:
            match = Match(kind, {**sources, **columns})
            if number == 0:
                return [match]
            if match not in matches:
                matches.append(match)
    return matches


def _sources(alternative: Alternative, have: dict[str, None], columns: Columns) -> dict[str, tuple[str, ...]] | None:
    sources = {}
    for role, column in alternative:
        # What the user mapped is settled: it is read as mapped, and no other column is tried for it.
        names = columns[role] if role in columns else tuple(column.split("+"))
        if role not in columns and not all(name in have for name in names):
            return None
        sources[role] = names
    return sources


def _none(found: Sequence[str], kinds: Sequence[Kind], task: str | None) -> str:
    asked = f" for the task {task}" if task else ""
    lines = [f"the columns do not make rows of a known kind{asked}.", f"  columns found: {', '.join(found) or 'none'}"]
    lines.append("  kinds known:   " + " · ".join(kind.name for kind in kinds))
    lines.append(f"Say which column is which, for example {_example(found, kinds)}")
    return "\n".join(lines)


def _several(found: Sequence[str], best: list[Match], task: str | None) -> str:
    lines = ["the columns can be read in several ways.", f"  columns found: {', '.join(found)}"]
    for match in best:
        hint = "" if task else f" --task {match.kind.tasks[0]}"
        lines.append(f'  as {match.kind.name}:  --columns "{format_columns(match.columns)}"{hint}')
    lines.append("Write one of these.")
    return "\n".join(lines)


def _example(found: Sequence[str], kinds: Sequence[Kind]) -> str:
    usual = "prompt,completion" if len(found) > 1 else "text"
    kind = next((kind for kind in kinds if kind.name == usual), kinds[0])
    roles = [role for role, _ in kind.alternatives[0]]
    names = [*found, *("COLUMN" for _ in roles)]
    example = format_columns({role: (name,) for role, name in zip(roles, names, strict=False)})
    return f'--columns "{example}" for rows of {kind.name}.'
