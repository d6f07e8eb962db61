"""The small base models that graft carries, each in a folder of its own: found by name, loaded like any local model."""

import difflib
from pathlib import Path

from graft.errors import BadInput

_HERE = Path(__file__).parent


def names() -> list[str]:
    """The bases that are here, in alphabetical order."""
    return sorted(path.parent.name for path in _HERE.glob("*/config.json"))


def path(name: str) -> Path:
    """The folder of a base: `AutoModelForCausalLM.from_pretrained(graft.bases.path("sprout"))`.

    Raises BadInput for an unknown name, with the nearest one.
    """
    known = names()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f' Did you mean "{near[0]}"?' if near else f" Bundled here: {', '.join(known) or 'none'}."
        raise BadInput(f'there is no bundled base "{name}".{hint}')
    return _HERE / name


def place(model: str | Path) -> str:
    """Where to load a model from: the folder of a bundled base, or what was given."""
    return str(path(str(model)) if str(model) in names() else model)


def hint(model: str | Path) -> str:
    """A sentence for what is almost the name of a bundled base; nothing for what is not."""
    near = [] if Path(model).exists() else difflib.get_close_matches(str(model), names(), 1)
    return f" Did you mean the bundled base {near[0]}?" if near else ""
