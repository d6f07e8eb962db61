"""A contestant: a named way to do the task, with its settings; several values of a setting make a sweep.

full                          a short name: top_layers with k=all
lora                          the method of that name, with its defaults
big=lora+prefix_tuning        under a name of its own; settings are then big.lora.rank, big.prefix_tuning.tokens
./mine.py                     the method in that file
tfidf                         no fine-tuning at all: one of `tournament/entrants`
"""

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from graft import catalogue
from graft.attach.refusals import NAME
from graft.errors import BadInput
from graft.method import Method, describe, find, named
from graft.tournament import entrants
from graft.tournament.entrant import Entrant

SHORT: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("top_layers", {"k": "all"}),
    "head": ("top_layers", {"k": 0}),
}
RATE = "lr"  # beside the fields of a method: its peak learning rate, which is then not searched

Settings = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Contestant:
    """A way that takes part. `rate`: the peak learning rate, where it is fixed. `given`: the settings that are not
    searched, because they were asked for. `of`, `at`: of a sweep, the name of the whole and the values of this point.
    """

    name: str
    way: Method | Entrant
    rate: float | None = None
    given: tuple[str, ...] = ()
    of: str = ""
    at: tuple[tuple[str, Any], ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What it does, without its name: two names for the same way are the same."""
        return {**spelled(self.way), **({RATE: self.rate} if self.rate is not None else {})}


def spelled(way: Method | Entrant) -> dict[str, Any]:
    """A way as plain values."""
    if isinstance(way, Method):
        return describe(way)
    return {"entrant": way.name, **{f.name: getattr(way, f.name) for f in fields(way)}}


def parsed(word: str) -> tuple[str, list[str]]:
    """`big=lora+bitfit` as its name and the ways of its sum. Raises BadInput for what is no contestant."""
    name, _, ways = word.strip().rpartition("=")
    parts = [part.strip() for part in ways.split("+")]
    name = name.strip() or "-".join(_method(part).name if part.endswith(".py") else part.lower() for part in parts)
    if not NAME.fullmatch(name):
        raise BadInput(f"contestant {word!r}: a name has lower-case letters, digits, '.', '_' and '-', as in big=lora.")
    if len(parts) == 1 and (parts[0] in SHORT or parts[0] in entrants.names()):
        return name, parts
    for part in parts:
        if part in SHORT or part in entrants.names():
            raise BadInput(f"contestant {word!r}: {part} cannot be part of a sum; a sum is of methods.")
    return name, [_method(part).name for part in parts]


def fields_of(words: Sequence[str]) -> dict[str, dict[str, type]]:
    """For each contestant the settings it takes, `rank` or (in a sum) `lora.rank`, and the class that has each.

    A method's learning rate, `lr`, is none of its fields: it stands with `Method` itself.
    """
    found: dict[str, dict[str, type]] = {}
    for word in words:
        name, ways = parsed(word)
        if name in found:
            raise BadInput(f"two contestants are called {name!r}. Name one of them: other={'+'.join(ways)}.")
        found[name] = {}
        for way in ways:
            kind = _class(way)
            prefix = f"{way}." if len(ways) > 1 else ""
            found[name] |= {f"{prefix}{f.name}": kind for f in fields(kind) if f.init}
        if issubclass(kind, Method):
            found[name][RATE] = Method
    return found


def assembled(words: Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> list[Contestant]:
    """All contestants; each setting holds one value, or several, which make a contestant of every combination.

    Raises BadInput, with all that is wrong, for unknown names and settings and for values that a way refuses.
    """
    known = fields_of(words)
    several = {name: {key: _several(value) for key, value in given.items()} for name, given in settings.items()}
    wrong = [f"there is no contestant {name!r}{_nearest([name], known)} to set {', '.join(given)} of"
             for name, given in settings.items() if name not in known]  # fmt: skip
    for name, given in settings.items():
        odd = [key for key in given if name in known and key not in known[name]]
        if odd:
            wrong.append(f"{name} has no setting {', '.join(odd)}; it has: {', '.join(known[name])}"
                         f"{_nearest(odd, known[name])}")  # fmt: skip
    wrong += [f"{name}.{key} has {'one value twice' if values else 'no value'}"
              for name, given in several.items() for key, values in given.items()
              if not values or any(value in values[:at] for at, value in enumerate(values))]  # fmt: skip
    wrong += [f"{name}.{key} must be a finite number above 0, got {value}"
              for name, given in several.items() for key, values in given.items()
              if name in known and known[name].get(key) is Method
              for value in values if value is not None and not _is_rate(value)]  # fmt: skip
    if wrong:
        raise BadInput("; ".join(wrong) + ".")
    return [each for word in words for each in _points(word, several.get(parsed(word)[0], {}))]


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 0


def _several(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)


def _points(word: str, settings: Settings) -> list[Contestant]:
    name, ways = parsed(word)
    axes = [key for key, values in settings.items() if len(values) > 1]
    points = []
    for values in itertools.product(*settings.values()):
        given = dict(zip(settings, values, strict=True))
        at = tuple((axis, given[axis]) for axis in axes)
        label = "".join(f" {axis}={value}" for axis, value in at)
        rate = given.pop(RATE, None) if fields_of([word])[name].get(RATE) is Method else None
        points.append(Contestant(name + label, _built(ways, given), rate, tuple(given), name if axes else "", at))
    return points


def _built(ways: list[str], given: dict[str, Any]) -> Method | Entrant:
    if len(ways) == 1 and ways[0] in entrants.names():
        return entrants.find(ways[0])(**given)
    if len(ways) == 1:
        method, fixed = SHORT.get(ways[0], (ways[0], {}))
        return named(method, {method: {**fixed, **given}})
    apart: dict[str, dict[str, Any]] = {}
    for key, value in given.items():
        way, _, field = key.partition(".")
        apart.setdefault(way, {})[field] = value
    return named("+".join(ways), apart)


def _class(way: str) -> type:
    if way in entrants.names():
        return entrants.find(way)
    return find(SHORT[way][0] if way in SHORT else way)


def _method(name: str) -> catalogue.Entry:
    try:
        return catalogue.asked(name)
    except BadInput as error:
        if name.endswith(".py"):
            raise
        methods, others = list(catalogue.methods()), [*SHORT, *entrants.names()]
        near = difflib.get_close_matches(name.strip().lower(), [*methods, *others], 1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise BadInput(
            f"no contestant is called {name!r}.{hint} Methods: {', '.join(methods)}. Beside them: {', '.join(others)}."
        ) from error


def _nearest(names: Iterable[str], known: Iterable[str]) -> str:
    """The known names that are nearest to some that are not known, for a sentence about them."""
    near = [each for name in names for each in difflib.get_close_matches(name, list(known), 1)]
    return f" (nearest: {', '.join(near)})" if near else ""
