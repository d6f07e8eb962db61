"""`graft combine`: one adapter of several, or an ordinary one of one that knows several tasks."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Options:
    """Make one adapter of several of the same base, without training: an average, a stack, side by side.

    average: of the tensors, for adapters of one method. parallel: the weighted sum of what each adds. stack: one after
    the other; the task is the last one's. frozen: one adapter that knows several tasks, for one of them, or for
    `examples` of another. What is written is an ordinary adapter: evaluate it before it is used.
    """

    adapters: Annotated[tuple[str, ...], "folders or Hugging Face ids of adapters, graft's own or PEFT's"]
    how: Annotated[Literal["average", "stack", "parallel", "frozen"], "how they become one"]
    output: Annotated[Path, "folder for the new adapter"]
    weights: Annotated[tuple[float, ...], "of average and parallel: one for each adapter; by default all alike"] = ()
    task: Annotated[str | None, "of frozen: which of the adapter's tasks"] = None
    examples: Annotated[Path | None, "of frozen: rows of another task, for an adapter that reads examples"] = None
    model: Annotated[str | None, "the base, where it is not where the adapters say"] = None
    name: Annotated[str, "name of the new adapter"] = "default"
    dtype: Annotated[Literal["auto", "bf16", "fp32"], "of the base; auto: bf16 on a GPU that has it, else fp32"] = (
        "auto"
    )
    device: Annotated[str, "cpu, cuda, cuda:1, mps; auto: a GPU where there is one"] = "auto"
    force: Annotated[bool, "use the adapters on another base than they were made for"] = False
    trust_remote_code: Annotated[bool, "run the code that comes with this model"] = False


@dataclass(frozen=True)
class Result:
    """What was made."""

    summary: dict[str, Any]
    notes: list[str]
    command: str
    exit_code: int = field(default=0)

    def as_json(self) -> dict[str, Any]:
        """The summary, notes, and the command to use the adapter."""
        return {**self.summary, "notes": self.notes, "command": self.command}

    def show(self, console: "Console") -> None:
        """Print one line per fact, and the command."""
        from rich.table import Table
        from rich.text import Text

        facts = Table.grid(padding=(0, 2))
        for title, value in self.summary.items():
            facts.add_row(Text(title.replace("_", " "), "bold"), Text(str(value)))
        console.print(facts, "", sep="\n")
        for note in self.notes:
            console.print(Text(f"note: {note}", "dim"), soft_wrap=True)
        console.print(Text("use it: ", "bold").append(self.command, "bold cyan"), soft_wrap=True)


def run(options: Options) -> Result:
    """Load the base and the adapters, make one of them, save. Raises what `graft.transfer.combined.write` raises."""
    from graft.transfer.combined import write

    return Result(*write(options))
