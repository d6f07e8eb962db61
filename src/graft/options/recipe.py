"""A recipe: options written in a YAML file, each remembered with its line.

Scalars are kept as they were written and become what the option's type says, not what YAML would guess: a label `no`
stays the word "no" for a text option, and `1e-3` is a number for a number option.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml

from graft.errors import BadInput

_NULL = "tag:yaml.org,2002:null"


@dataclass(frozen=True)
class Entry:
    """One option of a recipe: dotted key, text of the value (a tuple for a list, None for null), file and line."""

    key: str
    value: str | tuple[str, ...] | None
    where: str


def read(path: Path) -> list[Entry]:
    """Read a recipe into entries; nested mappings become dotted keys. Raises BadInput with file and line."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise BadInput(f"cannot read the recipe {path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not UTF-8 text: {error}.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise BadInput(f"{path}:{line}: not valid YAML: {error.problem}.") from error
    except RecursionError as error:
        raise BadInput(f"{path} is nested too deep; a recipe is a mapping of option: value.") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not valid YAML: {error}.") from error
    if root is None:
        return []
    if not isinstance(root, yaml.MappingNode):
        raise BadInput(f"{path}:1: a recipe is a mapping of option: value, this is a {root.id}.")
    entries = list(_flatten(path, root, ""))
    _refuse_twice(entries)
    return entries


def _flatten(path: Path, mapping: yaml.MappingNode, prefix: str) -> Iterator[Entry]:
    for key, value in mapping.value:
        where, name = f"{path}:{key.start_mark.line + 1}", f"{prefix}{key.value}"
        if isinstance(value, yaml.MappingNode):
            yield from _flatten(path, value, f"{name}.")
        elif isinstance(value, yaml.ScalarNode):
            yield Entry(name, None if value.tag == _NULL else value.value, where)
        elif all(isinstance(item, yaml.ScalarNode) for item in value.value):
            yield Entry(name, tuple(item.value for item in value.value), where)
        else:
            raise BadInput(f"{where}: {name} is a list of lists or mappings; a list here holds plain values.")


def _refuse_twice(entries: list[Entry]) -> None:
    first: dict[str, Entry] = {}
    twice = [entry for entry in entries if first.setdefault(entry.key, entry) is not entry]
    if twice:
        raise BadInput(
            "\n".join(f"{each.where}: {each.key} stands already at {first[each.key].where}." for each in twice)
        )
