"""The options of the chosen methods: `--lora.rank 8`, and `--rank 8` where no other option has that name."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from graft import catalogue
from graft.errors import BadInput
from graft.options.fields import Field, fields_of
from graft.options.recipe import Entry


@dataclass(frozen=True)
class Setting:
    """One option of a verb (`owner` is empty), of a method or of a contestant, and the names it may be given by."""

    field: Field
    names: tuple[str, ...]
    owner: str = ""

    @property
    def keyword(self) -> str:
        """A Python name for it, different for every owner's field."""
        return re.sub(r"\W", "_", f"{self.owner}__{self.field.name}") if self.owner else self.field.name


def settings_of(methods: Iterable[str], taken: Iterable[str]) -> list[Setting]:
    """Give the settings of some methods; `taken` are the verb's own option names. Imports the methods, so torch."""
    if not (methods := list(methods)):
        return []
    from graft.method import find

    found = [(method, field) for method in methods for field in fields_of(find(method))]
    count = Counter([field.name for _, field in found] + list(taken))
    alone = {name for name, times in count.items() if times == 1}
    return [Setting(field, (f"{method}.{field.name}", *({field.name} & alone)), method) for method, field in found]


def choose(arguments: Sequence[str], entries: Sequence[Entry], first: bool) -> tuple[str | None, list[Entry]]:
    """Find which method is asked for, before parsing, because its fields are options too.

    first: it is the verb's first option, which may be given by position. Also gives the recipe's entries without the
    settings of methods that the arguments replaced.
    """
    typed = [word for word in arguments[:1] if first and not word.startswith("-")]
    typed += [word.removeprefix("--method=") for word in arguments if word.startswith("--method=")]
    typed += [after for word, after in pairwise(arguments) if word == "--method"]
    written = [entry.value for entry in entries if entry.key == "method" and isinstance(entry.value, str)]
    replaced = set(split(written[0])) - set(split(typed[-1])) if typed and written else set()
    kept = [entry for entry in entries if entry.key.partition(".")[0] not in replaced]
    return next(iter([*typed[-1:], *written]), None), kept


def split(sum_of_methods: str) -> list[str]:
    """Split `lora+prefix_tuning` into the names of its methods; a class's name does as well as its file's, or its file.

    Raises BadInput for an unknown or repeated one.
    """
    names = [catalogue.asked(word).name for word in sum_of_methods.split("+")]
    if twice := [name for name, times in Counter(names).items() if times > 1]:
        raise BadInput(f"method {sum_of_methods}: {', '.join(twice)} is in the sum twice.")
    return names
