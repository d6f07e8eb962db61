"""graft.json: what an adapter folder says about itself, written once and read back with suspicion."""

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from graft.attach.refusals import NAME
from graft.catalogue import VARIABLE
from graft.checkpoint.safe import listed, read_json
from graft.errors import BadInput
from graft.method import Method, find, restore

SCHEMA = 1
FILE = "graft.json"


@dataclass(frozen=True)
class Record:
    """Everything in graft.json.

    `method` is the served form of the method as plain data, `trained_as` the form it was trained in; `sites` are the
    keys of its parts, `coverage` their number by role, `head` whether a task head belongs to the adapter. `base` holds
    id, revision and fingerprint of the base; `tokenizer` the hashes of tokenizer and chat template; `peft` is "" where
    PEFT's files stand beside, else why they do not; `extra` what the caller added (task, labels, scores, seeds).
    """

    name: str
    method: Mapping[str, Any]
    trained_as: Mapping[str, Any]
    expression: str
    sites: tuple[str, ...]
    coverage: Mapping[str, int]
    head: bool
    counts: Mapping[str, int]
    base: Mapping[str, Any]
    tokenizer: Mapping[str, str] | None = None
    peft: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    schema: int = SCHEMA

    def write(self, folder: Path) -> None:
        """Write graft.json into a folder. Raises BadInput when `extra` holds what JSON cannot."""
        try:
            text = json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise BadInput(
                f"extra={dict(self.extra)!r:.200} cannot be written as JSON ({error}). Use plain numbers and text."
            ) from error
        (folder / FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Record":
        """Read graft.json. Raises BadInput for another schema, and for fields that are missing, unknown or mistyped."""
        data = read_json(path)
        if data.get("schema") != SCHEMA:
            wrote = data.get("versions")
            by = f" ({wrote['graft']!r:.40})" if isinstance(wrote, dict) and "graft" in wrote else ""
            raise BadInput(
                f"{path}: schema {data.get('schema')!r:.40}, this graft reads {SCHEMA}. Use the one that wrote it{by}."
            )
        kinds = typing.get_type_hints(cls)
        unknown = sorted(data.keys() - kinds.keys())
        missing = sorted(f.name for f in fields(cls) if f.name not in data)
        wrong = [key for key in kinds if key in data and not fits(data[key], kinds[key])]
        if unknown or missing or wrong:
            said = (("unknown", unknown), ("missing", missing), ("of another type", wrong))
            raise BadInput(f"{path}: " + "; ".join(f"{what}: {listed(names)}" for what, names in said if names) + ".")
        if not NAME.fullmatch(data["name"]):
            raise BadInput(
                f"{path}: {data['name'][:80]!r} is no adapter name: lower-case letters, digits, '.', '_', '-'."
            )
        return cls(**{**data, "sites": tuple(data["sites"])})


def described(path: Path, data: Mapping[str, Any]) -> Method:
    """The method that `graft.method.describe` described, from data of `path` that nobody vouches for.

    Raises BadInput for an unknown method, or hyperparameters unknown or mistyped.
    """
    terms = data.get("sum", [data]) if set(data) == {"sum"} else [data]
    for term in terms if isinstance(terms, list) else [None]:
        if not isinstance(term, dict) or not isinstance(term.get("method"), str) or len(str(term)) > 100_000:
            raise BadInput(f"{path}: the method is not described by its name and hyperparameters.")
        kinds = typing.get_type_hints(_known(path, term), include_extras=False)
        wrong = [f"{key}={value!r:.60}" for key, value in term.items() if key in kinds and not fits(value, kinds[key])]
        if wrong:
            raise BadInput(
                f"{path}: {term['method']} cannot have {', '.join(wrong)}: a value of another type was expected."
            )
    return restore(data)


def _known(path: Path, term: Mapping[str, Any]) -> type[Method]:
    """The class of a method; where one from outside is missing, say which. What a file says is code is never run."""
    try:
        return find(term["method"])
    except BadInput as error:
        if "from" not in term:
            raise
        name, origin = term["method"][:80], str(term["from"])[:200]
        raise BadInput(
            f"{path}: this adapter is made by the method {name!r} from {origin}, which is not here. Install the "
            f"package, or name the file yourself: {VARIABLE}=path/to/{name}.py graft …, or in Python "
            f'graft.method.named("path/to/{name}.py").'
        ) from error


def fits(value: Any, kind: Any) -> bool:
    """Whether a value read from JSON is of an annotated type."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return fits(value, inner[0])
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return any(type(value) is type(each) and value == each for each in inner)
    if kind is float:
        return type(value) in (int, float)
    if origin in (tuple, list) or kind in (tuple, list):
        each = inner[0] if inner else Any
        return isinstance(value, list) and all(fits(item, each) for item in value)
    if origin is not None:
        return isinstance(value, dict) and all(fits(item, inner[1]) for item in value.values())
    return value is None if kind is types.NoneType else type(value) is kind


def versions() -> dict[str, str]:
    """The versions of graft and of the libraries that give a base its function."""
    from graft import __version__

    found = {"graft": __version__}
    for package in ("torch", "transformers", "tokenizers", "safetensors"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
