"""A speaker: a model that answers prompts, with an adapter, without, or both side by side."""

from collections.abc import Iterator, Mapping
from typing import Any

from graft import checkpoint
from graft.attach import require, use
from graft.data.columns import nearest
from graft.data.task import Task
from graft.data.tasks import from_dict
from graft.decode.prompts import prompted
from graft.decode.writing import Writing, write
from graft.errors import BadInput, Refused
from graft.loading import Precision, Source, kept_with, load_generator

WRITES = ("generation", "chat", "language_modeling")


class Speaker:
    """Loads a base, and an adapter where there is one. `systems`: the names of what answers, in order."""

    def __init__(
        self,
        source: Source,
        adapter: str | None,
        how: Writing,
        *,
        beside: bool = False,
        plain: bool = False,
        of: str | None = None,
        dtype: Precision = "auto",
        device: str = "auto",
        force: bool = False,
        remember: bool = False,
    ) -> None:
        """`beside`: the base answers too. `plain`: prompts as they are. `of`: the task that prompts belong to, where
        an adapter knows several and no row says it. `remember`: earlier turns of a chat stay.

        Raises Refused for a model that writes no text or an adapter of another task.
        """
        self.how, self.remember = how, remember
        self.task = None if plain else _task(adapter)
        self.model, self.tokenizer = load_generator(source, dtype=dtype, device=device), source.tokenizer
        self.systems: dict[str, str | None] = {"base": None} if beside or adapter is None else {}
        self.turns: dict[str, list[dict[str, str]]] = {"base": [], "adapter": []}
        if adapter is not None:
            self.systems["adapter"] = checkpoint.load(self.model, adapter, force=force).name
        self.grafted, self.of = adapter is not None, of
        self.tasks = require(self.model).adapters[self.systems["adapter"]].tasks if adapter is not None else ()  # type: ignore[index]
        if of is not None and of not in self.tasks:
            knows = f"it knows {', '.join(self.tasks)}{nearest(of, self.tasks)}" if self.tasks else "it knows only one"
            raise BadInput(f"--task {of}: the adapter has no such task; {knows}.")

    def speak(self, asked: str | Mapping[str, Any]) -> Iterator[tuple[str, Iterator[str]]]:
        """For each system its name and its answer in pieces; take the pieces before the next system."""
        for system in self.systems:
            yield system, self._pieces(system, asked)

    def answers(self, asked: str | Mapping[str, Any]) -> dict[str, str]:
        """The whole answer of each system."""
        return {system: "".join(pieces) for system, pieces in self.speak(asked)}

    def _pieces(self, system: str, asked: str | Mapping[str, Any]) -> Iterator[str]:
        ids = prompted(self.task, self.tokenizer, asked, self.turns[system])
        said = ""
        for piece in self._written(system, ids, self._task_of(asked)):
            said += piece
            yield piece
        if self.remember and self.task is not None and self.task.kind == "chat" and isinstance(asked, str):
            self.turns[system] += [{"role": "user", "content": asked}, {"role": "assistant", "content": said.strip()}]

    def _task_of(self, asked: str | Mapping[str, Any]) -> str | None:
        """Which of the adapter's tasks a prompt belongs to."""
        row = asked.get("task") if isinstance(asked, Mapping) else None
        found = self.of if row is None else str(row)
        if self.tasks and found not in self.tasks and (found is not None or len(self.tasks) > 1):
            seen = "none was named" if found is None else f"{found!r} is none of them{nearest(found, self.tasks)}"
            raise BadInput(
                f"the adapter knows the tasks {', '.join(self.tasks)}, and {seen}: add --task {self.tasks[0]}, or "
                "give rows with a column `task` in a .jsonl file with --prompts."
            )
        return found

    def _written(self, system: str, ids: list[int], of: str | None) -> Iterator[str]:
        if not self.grafted:
            yield from write(self.model, self.tokenizer, ids, self.how, self.task)
            return
        with use(self.model, self.systems[system], of):
            yield from write(self.model, self.tokenizer, ids, self.how, self.task)


def _task(adapter: str | None) -> Task | None:
    stored = kept_with(adapter).get("task") if adapter is not None else None
    if stored is None:
        return None
    task = from_dict(stored)
    if task.kind not in WRITES:
        raise Refused(f"{adapter} was tuned for {task.kind}, which writes no text: use `graft evaluate`.")
    return task
