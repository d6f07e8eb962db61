"""Worked examples in the prompt (Wei et al. 2022, arXiv 2201.11903), or, with k = 0, "Let's think step by step." and a
second question for the answer (Kojima et al. 2022, arXiv 2205.11916).

    prompt 1 ⏎ steps 1 ⏎ #### answer 1 ⏎⏎ … ⏎⏎ prompt        the answer is what the base writes after the marker

The steps are in a column of their own, and the completion is the answer alone; or the completion holds steps, marker
and answer, as in GSM8K, and then so does the output, because the references do.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from graft.data.answering import answer_room, answers
from graft.data.rows import Row
from graft.data.task import Record
from graft.data.tasks.generation import Generation
from graft.data.templates import DEFAULT, render
from graft.memory import Portions
from graft.tournament.entrant import Answerer, Arena, Entrant
from graft.tournament.entrants import _examples
from graft.tournament.entrants._examples import Room

COLUMNS = ("reasoning", "rationale")
THINK, THEREFORE = "Let's think step by step.", "Therefore, the answer is"
AT_ONCE = 32  # rows


@dataclass(frozen=True)
class ChainOfThought(Entrant):
    """The base as it is, shown or asked for the steps that lead to an answer."""

    k: Annotated[int, "worked examples in the prompt; 0 asks to think step by step"] = 4
    marker: Annotated[str, "what stands between the steps and the answer"] = "####"
    column: Annotated[
        str | None, "column of the steps; without, reasoning or rationale, else the completion up to the marker"
    ] = None

    search: ClassVar = {"k": (4, 8, 0, 2)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(0, "k")
        self.check(bool(self.marker.strip()), "marker", "must not be empty", "Try '####'.")

    def refuses(self, arena: Arena) -> str | None:
        if not isinstance(arena.task, Generation):
            return f"chain_of_thought writes steps and then an answer, which {arena.task.kind} has no place for."
        if arena.fresh:
            return "chain_of_thought: the base's head is untrained, so it cannot write steps."
        if self._steps(arena.train) is None and not self._within(arena.train):
            names = self.column or " or ".join(COLUMNS)
            return (
                f"chain_of_thought: rows show no steps; there is no column {names}, nor {self.marker!r} in completions."
            )
        return None

    def fit(self, arena: Arena, rows: Sequence[Row], seed: int) -> Answerer:
        assert isinstance(arena.task, Generation)
        column = self._steps(rows)
        worked = {id(row): row["completion"] if column is None else self._joined(row, column) for row in rows}
        shown = [(row, worked[id(row)]) for row in _examples.drawn(rows, self.k, seed)]
        return Reasoned(arena, arena.task, shown, list(worked.values()), self.marker, within=column is None)

    def _steps(self, rows: Sequence[Row]) -> str | None:
        """The column of the steps that every row has."""
        names = (self.column,) if self.column is not None else COLUMNS
        return next((name for name in names if all(isinstance(row.get(name), str) for row in rows)), None)

    def _within(self, rows: Sequence[Row]) -> bool:
        return all(self.marker in row["completion"] for row in rows)

    def _joined(self, row: Row, column: str) -> str:
        # GSM8K's column of steps ends in the marker and the answer itself.
        steps = row[column].partition(self.marker)[0].rstrip()
        return f"{steps}\n{self.marker} {row['completion']}"


class Reasoned(Answerer):
    """Answers after steps that the base writes itself. `within`: whether the output keeps the steps."""

    def __init__(
        self, arena: Arena, task: Generation, examples: Sequence[tuple[Row, str]], worked: Sequence[str], marker: str,
        within: bool,
    ) -> None:  # fmt: skip
        self.arena, self.marker, self.within, self.asking = arena, marker, within, task
        self.between = _examples.separator(worked)
        self.examples = [task.prompt(row) + text + self.between for row, text in examples]
        room = answer_room(worked, arena.tokenizer, task.max_length)
        self.task = replace(task, template=DEFAULT, separator="", max_new_tokens=room)
        self.room = Room(arena, len(self.examples))
        super().__init__(stored=sum(len(text.encode("utf-8", "surrogatepass")) for text in self.examples))

    def answer(self, rows: Sequence[Row]) -> list[Record]:
        found = self._shown(rows) if self.examples else self._asked(rows)
        self.notes = self.room.notes
        return [
            {"item": item, "output": f"{steps}\n{self.marker} {answer}".strip() if self.within else answer}
            for item, (steps, answer) in enumerate(found)
        ]

    def _shown(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        def asked(row: Row, count: int) -> Row:
            shown = self.examples[len(self.examples) - count :]
            return Row({"prompt": "".join(shown) + self.asking.prompt(row)}, row.where)

        counts = [self.room.fitting(lambda count, row=row: (self.task, asked(row, count))) for row in rows]  # type: ignore[misc]
        prompts = [asked(row, count)["prompt"] for row, count in zip(rows, counts, strict=True)]
        return [self._parted(text.partition(self.between)[0]) for text in self._written(prompts, self.task)]

    def _asked(self, rows: Sequence[Row]) -> list[tuple[str, str]]:
        prompts = [f"{render(self.asking.template, row)}{self.asking.separator}{THINK}" for row in rows]
        steps = self._written(prompts, self.task)
        again = [f"{prompt} {text}\n{THEREFORE}" for prompt, text in zip(prompts, steps, strict=True)]
        # As much room as an answer needs; the prompt, which holds the steps, gives way at its beginning.
        short = self.task if self.within else replace(self.task, max_new_tokens=self.asking.max_new_tokens)
        given = [text.partition("\n")[0].strip() for text in self._written(again, short)]
        return list(zip(steps, given, strict=True))

    def _parted(self, text: str) -> tuple[str, str]:
        """Steps and answer; of a text without a marker the last line is taken for the answer."""
        steps, marker, rest = text.partition(self.marker)
        if not marker:
            steps, _, rest = text.rstrip().rpartition("\n")
        return steps.rstrip(), rest.strip().partition("\n")[0].rstrip()

    def _written(self, prompts: Sequence[str], task: Generation) -> list[str]:
        """What the base goes on with after each prompt."""
        tokenizer = self.arena.tokenizer
        ids = [task.encode({"prompt": prompt}, tokenizer)["input_ids"] for prompt in prompts]
        order = sorted(range(len(ids)), key=lambda at: len(ids[at]), reverse=True)
        written: list[str] = []
        for part in Portions(AT_ONCE).each(
            order, lambda part: answers(self.arena.model, [ids[at] for at in part], tokenizer, task.max_new_tokens)
        ):
            written += part
        texts = dict(zip(order, written, strict=True))
        return [texts[at] for at in range(len(prompts))]
