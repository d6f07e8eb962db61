"""Adapters that are to become one, before any model is loaded: what their folders say, and whether they go together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft import bases, checkpoint
from graft.checkpoint.peft import settings
from graft.checkpoint.record import FILE, described
from graft.checkpoint.source import names, native
from graft.data.task import Task
from graft.data.tasks import from_dict
from graft.errors import BadInput, Refused

HEADED = ("SEQ_CLS", "TOKEN_CLS", "QUESTION_ANS")  # as PEFT calls tasks whose head it keeps with an adapter


@dataclass(frozen=True)
class Given:
    """An adapter in a folder. `folder`: as the user named it; `name`: what it is called among the others; `base`: what
    it was made for, "" where it does not say; `task`: None where nothing says it; `head`: whether it has a task head;
    `kept`: what `graft tune` kept with it."""

    folder: str
    place: Path
    name: str
    base: str
    task: Task | None
    head: bool
    kept: dict[str, Any]


def read(folders: Sequence[str], taken: str) -> list[Given]:
    """What the folders say; none is called `taken`.

    Raises BadInput for one that holds no adapter and one that is named twice, Refused for one that trains the base's
    own tensors.
    """
    places = [checkpoint.locate(folder) for folder in folders]
    if twice := [folder for folder, place in zip(folders, places, strict=True)
                 if sum(place.resolve() == other.resolve() for other in places) > 1]:  # fmt: skip
        raise BadInput(f"{twice[0]} is given twice. Give each adapter once; --weights says how much each counts.")
    return [_one(*each) for each in zip(folders, places, names(places, taken), strict=True)]


def one_base(given: Sequence[Given]) -> str:
    """The base that all name. Raises BadInput where they name several, or none."""
    said = [each for each in given if each.base]
    if not said:
        raise BadInput(f"{given[0].folder} does not say which model it was made for: name it with --model.")
    first = said[0]
    for other in said[1:]:
        if _where(other.base) != _where(first.base):
            raise BadInput(
                f"{first.folder} was made for {first.base}, and {other.folder} for {other.base}. Combine adapters of "
                "one base; where it is the same under two names, say which with --model."
            )
    return first.base


def one_task(given: Sequence[Given], how: str) -> Task | None:
    """The task of what they become: that of all; of a stack the last one's, if the others have no head of another.

    None where nothing says it. Raises Refused for adapters that do not go together, and for heads without a place.
    """
    last = given[-1]
    headed, bare = [each for each in given if each.head], [each for each in given if not each.head]
    if how == "parallel" and headed:
        raise Refused(
            f"{headed[0].folder} has a task head of its own, and what adapters add side by side fits none of their "
            "heads. Use --how average for runs of one method on the same labels, or --how stack for the last head."
        )
    if headed and bare and (how != "stack" or not last.head):
        remedy = "give the one with the head last" if how == "stack" else "use --how stack with that one last"
        raise Refused(
            f"{headed[0].folder} has a task head of its own and {bare[0].folder} has none. Combine adapters of one "
            f"task, or {remedy}."
        )
    peers = given if how != "stack" else headed or [last]
    known = [each for each in peers if each.task is not None]
    if headed and not known:
        raise BadInput(
            f"{headed[0].folder} has a task head and does not say its labels. Combine it in Python: load the model "
            "with that head, graft.load each adapter, and attach what graft.Average or graft.Stack makes of them."
        )
    for each in known[1:]:
        _same_task(known[0], each)
    return min((each.task for each in known if each.task), key=lambda task: task.max_length, default=None)


def _same_task(one: Given, other: Given) -> None:
    """Refuse two tasks that differ in more than how long a row may be."""
    assert one.task is not None and other.task is not None
    first, second = one.task.as_dict(), other.task.as_dict()
    differ = [key for key in first if key != "max_length" and first[key] != second.get(key)]
    if differ:
        key = differ[0]
        raise Refused(
            f"{one.folder} and {other.folder} are of different tasks: {key} is {first[key]!r:.120} and "
            f"{second.get(key)!r:.120}. Combine adapters of one task, or with --how stack one on others without a head."
        )


def _where(base: str) -> str:
    """A base by where it is, however it is written."""
    place = Path(bases.place(base)).expanduser()
    return str(place.resolve()) if place.exists() else base


def _one(folder: str, place: Path, name: str) -> Given:
    if not native(place):
        config = settings.read(place)
        head = config.get("task_type") in HEADED
        return Given(folder, place, name, str(config.get("base_model_name_or_path") or ""), None, head, {})
    record = checkpoint.read(place)
    method = described(place / FILE, record.method)
    if own := [term for term in method.methods() if term.in_place]:
        raise Refused(
            f"{folder} ({own[0].slug()}) trains the base's own tensors, of which there is one set. Combine adapters "
            "that leave the base as it is, such as those of lora."
        )
    kept = dict(record.extra)
    task = from_dict(kept["task"]) if kept.get("task") else None
    base = str(kept.get("base") or record.base.get("id") or "")
    return Given(folder, place, name, base, task, record.head, kept)
