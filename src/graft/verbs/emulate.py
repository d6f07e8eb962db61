"""`graft emulate`: a model to tune for somebody else, who keeps the whole one."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Options:
    """Make an emulator of a language model: its ends whole, and of its middle some blocks, distilled where asked.

    Whoever has it tunes the ends with `graft tune EMULATOR rows.jsonl --method offsite`; whoever has the full model
    uses that adapter on it. The emulator's folder knows the full model by a few numbers of each of its tensors.
    """

    model: Annotated[str, "the full model: folder, Hugging Face id, or name of a bundled base"]
    output: Annotated[Path, "folder for the emulator"]
    ends: Annotated[int, "blocks at the bottom, and as many at the top, that stay whole"] = 2
    keep: Annotated[float, "share of the blocks between that stay"] = 0.5
    distill: Annotated[str | None, "texts to distill the middle on: a .txt file, or rows as for graft tune"] = None
    columns: Annotated[str | None, 'which column is which, as in "text=sentence"'] = None
    steps: Annotated[int, "steps of distilling"] = 200
    rate: Annotated[float, "its learning rate"] = 1e-4
    batch: Annotated[int, "texts in a step"] = 8
    rows: Annotated[int, "texts to use at most, spread evenly over the data"] = 500
    length: Annotated[int, "tokens of a text at most"] = 256
    device: Annotated[str, "cpu, cuda, cuda:1, mps; auto: a GPU where there is one"] = "auto"
    dtype: Annotated[Literal["auto", "bf16", "fp32"], "to compute in; stored is the full model's"] = "fp32"
    seed: Annotated[int, "of the order of the texts"] = 0
    trust_remote_code: Annotated[bool, "run the code that comes with this model"] = False


@dataclass(frozen=True)
class Result:
    """What was made."""

    summary: dict[str, Any]
    command: str
    exit_code: int = field(default=0)

    def as_json(self) -> dict[str, Any]:
        """The summary, and the command to tune the emulator."""
        return {**self.summary, "command": self.command}

    def show(self, console: "Console") -> None:
        """Print one line per fact, and the command."""
        from rich.table import Table
        from rich.text import Text

        facts = Table.grid(padding=(0, 2))
        for title, value in self.summary.items():
            shown = f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if type(value) is int else str(value)
            facts.add_row(Text(title.replace("_", " "), "bold"), Text(shown))
        console.print(facts, "", sep="\n")
        console.print(Text("tune it: ", "bold").append(self.command, "bold cyan"), soft_wrap=True)


def run(options: Options) -> Result:
    """Make, distill, save. Raises what `graft.transfer.emulating.write` raises."""
    from graft.limits import check_numbers
    from graft.transfer.emulating import write

    check_numbers(options, {"ends": 1, "steps": 1, "batch": 1, "rows": 2, "length": 2, "seed": 0}, ("rate", "keep"))
    return Result(*write(options))
