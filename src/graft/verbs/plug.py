"""`graft plug`: an adapter that was trained on a small model, for a larger one of the family."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Options:
    """Make an adapter of a small language model one of a larger, frozen one of its family, without training.

    Both models read the texts; matrices between their hidden states are fitted, and stored with the adapter. What is
    written is an ordinary adapter of the larger model: evaluate it before it is used.
    """

    adapter: Annotated[str, "folder or Hugging Face id of an adapter that was trained on the small model"]
    model: Annotated[str, "the larger model: folder, Hugging Face id, or name of a bundled base"]
    data: Annotated[str, "texts that both models read: a .txt file, or rows as for `graft tune`"]
    output: Annotated[Path, "folder for the adapter of the larger model"]
    small: Annotated[str | None, "the small model, where it is not where the adapter says"] = None
    columns: Annotated[str | None, 'which column is which, as in "text=sentence"'] = None
    fit: Annotated[
        Literal["least_squares", "orthogonal", "identity"],
        "how the matrices are found; identity: not at all, for models of one size",
    ] = "least_squares"
    rows: Annotated[int, "texts to read at most, spread evenly over the data"] = 100
    length: Annotated[int, "tokens of a text at most"] = 256
    name: Annotated[str | None, "name of the adapter; by default the one it has"] = None
    train_bridge: Annotated[bool, "let the matrices train when the adapter is loaded in Python"] = False
    dtype: Annotated[Literal["auto", "bf16", "fp32"], "of both models; auto: bf16 on a GPU that has it, else fp32"] = (
        "auto"
    )
    device: Annotated[str, "cpu, cuda, cuda:1, mps; auto: a GPU where there is one"] = "auto"
    force: Annotated[bool, "use the adapter with another small model than it was made for"] = False
    trust_remote_code: Annotated[bool, "run the code that comes with these models"] = False


@dataclass(frozen=True)
class Result:
    """What was made, and how well the models' hidden states could be matched."""

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
            shown = f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
            facts.add_row(Text(title.replace("_", " "), "bold"), Text(shown))
        console.print(facts, "", sep="\n")
        for note in self.notes:
            console.print(Text(f"note: {note}", "dim"), soft_wrap=True)
        console.print(Text("use it: ", "bold").append(self.command, "bold cyan"), soft_wrap=True)


def run(options: Options) -> Result:
    """Load both models, fit, save. Raises what `graft.transfer.plugged.write` raises."""
    from graft.limits import check_numbers
    from graft.transfer.plugged import write

    check_numbers(options, {"rows": 2, "length": 1})
    return Result(*write(options))
