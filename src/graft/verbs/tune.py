"""`graft tune`: adapt a model to rows, and show whether it helped."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from graft.method import Method
    from graft.training.tuning import Tuned


@dataclass(frozen=True)
class Options:
    """Adapt a model to your rows by any method, score it against the base, and keep the adapter.

    The run's folder holds recipe.yaml, metrics.jsonl, items.parquet, environment.json, checkpoints/ and adapter/.
    """

    model: Annotated[str, "folder, Hugging Face id, or name of a bundled base"]
    data: Annotated[str, "file, folder, train=a.jsonl,test=b.jsonl, or Hugging Face id"]
    method: Annotated["str | Method", "how to adapt; a sum is written lora+prefix_tuning"] = "lora"
    upon: Annotated[tuple[str, ...], "folders of adapters for a method made of others, such as adapter_fusion"] = ()
    columns: Annotated[str | None, 'which column is which, as in "text=sentence,label=polarity"'] = None
    task: Annotated[str | None, "the task, where the columns do not say it"] = None
    template: Annotated[str | None, "prompt template of a generation task: text with {{ column }}, or a file"] = None
    splits: Annotated[tuple[float, ...], "shares of train, validation, test for rows without splits"] = (0.8, 0.1, 0.1)
    allow: Annotated[tuple[str, ...], "complaints about the rows to live with"] = ()
    name: Annotated[str, "name of the adapter"] = "default"
    folder: Annotated[Path | None, "folder of the run; by default runs/NAME"] = None
    epochs: Annotated[float, "passes over the training rows"] = 3.0
    steps: Annotated[int | None, "optimizer steps, instead of epochs"] = None
    minutes: Annotated[float | None, "minutes of training, instead of epochs"] = None
    batch: Annotated[int, "rows in one optimizer step"] = 32
    accumulate: Annotated[
        int | Literal["auto"], "forward passes in a step; auto: as few as memory allows, doubled when it runs out"
    ] = "auto"
    length: Annotated[int | None, "tokens of a row at most; by default what the model takes, at most 1024"] = None
    lr: Annotated[float | None, "peak learning rate; by default the method's own"] = None
    schedule: Annotated[Literal["linear", "cosine", "constant"], "how the learning rate goes down"] = "linear"
    warmup: Annotated[float, "share of the run in which the learning rate rises"] = 0.06
    weight_decay: Annotated[float, "weight decay of matrices"] = 0.0
    clip: Annotated[float, "largest norm of the gradient"] = 1.0
    optimizer: Annotated[
        Literal["adamw", "lora+", "adamw8bit", "paged_adamw8bit", "mezo"],
        "mezo: forwards alone; lora+: B faster than A; in 8 bits, paged: with bitsandbytes",
    ] = "adamw"
    perturbation: Annotated[float | None, "how far mezo looks; by default the paper's for such a method"] = None
    objective: Annotated[str, "what mezo improves: the loss, or a metric"] = "loss"
    base_dropout: Annotated[bool, "keep the base's own dropout in training, where gradients go through it"] = True
    checkpointing: Annotated[bool, "compute activations again in the backward pass: less memory, more time"] = False
    dtype: Annotated[
        Literal["auto", "bf16", "fp32"],
        "of the base; auto: bf16 on a GPU that has it, else fp32, trained with bf16 arithmetic where the CPU has it",
    ] = "auto"
    device: Annotated[str, "cpu, cuda, cuda:1, mps; auto: a GPU where there is one"] = "auto"
    seed: Annotated[int, "of new tensors, of the order of the rows and of dropout"] = 0
    checks: Annotated[int, "how often the validation loss is measured and a checkpoint written"] = 10
    patience: Annotated[int, "checks without a better loss after which training stops (0: never)"] = 0
    validation_rows: Annotated[int, "validation rows to use at most (0: all)"] = 500
    test_rows: Annotated[int, "test rows to score at most (0: all)"] = 0
    metric: Annotated[str | None, "the metric that decides; by default the task's first"] = None
    general_text: Annotated[str | None, "text to measure forgetting on; by default Python's own language reference"] = (
        None
    )
    report_to: Annotated[tuple[str, ...], "trackers that transformers knows, such as tensorboard"] = ()
    trust_remote_code: Annotated[bool, "run the code that comes with this model"] = False
    show_mask: Annotated[int, "print this many training rows with what is trained marked"] = 0
    dry_run: Annotated[bool, "check everything, print what would be trained, and stop"] = False
    resume: Annotated[bool, "go on from the newest checkpoint in the folder"] = False


@dataclass(frozen=True)
class Result:
    """What `graft tune` did; without `tuned` it only looked."""

    summary: dict[str, Any]
    notes: list[str]
    command: str = ""
    tuned: "Tuned | None" = None
    masks: Any = None
    exit_code: int = field(default=0)

    def as_json(self) -> dict[str, Any]:
        """The summary, and scores against the base."""
        found = {**self.summary, "notes": self.notes}
        if self.tuned is not None:
            found |= {"scores": self.tuned.outcome.as_json(), "samples": self.tuned.samples, "command": self.command}
            found["floor"] = self.tuned.floor and self.tuned.floor.as_json()
            found["forgetting"] = self.tuned.forgot and self.tuned.forgot.as_json()
        return found

    def show(self, console: "Console") -> None:
        """Print coverage and counts, time and memory, base against adapter, samples, and the command to use it."""
        from rich.table import Table
        from rich.text import Text

        from graft.scoring import show_outcome, show_samples

        if self.masks is not None:
            console.print(self.masks)
        facts = Table.grid(padding=(0, 2))
        for title, value in self.summary.items():
            facts.add_row(Text(title.replace("_", " "), "bold"), Text(str(value)))
        console.print(facts, "", sep="\n")
        if self.tuned is not None:
            for found in (self.tuned.outcome, self.tuned.floor, self.tuned.forgot):
                if found is not None:
                    show_outcome(console, found)
                    console.print()
            show_samples(console, self.tuned.samples, ("base", "adapter"))
        for note in self.notes:
            console.print(Text(f"note: {note}", "dim"), soft_wrap=True)
        if self.command:
            console.print(Text("use it: ", "bold").append(self.command, "bold cyan"), soft_wrap=True)


def run(options: Options) -> Result:
    """Check the data, score the base, train, score the adapter. Raises what `graft.training.tuning.tune` raises."""
    from graft.training.session import Session

    session = Session(options)
    if options.dry_run:
        return Result(session.summary(), session.notes, masks=session.masks())
    tuned = session.tune()
    return Result(
        session.summary(tuned), [*session.notes, *tuned.notes], session.command(tuned), tuned, session.masks()
    )
