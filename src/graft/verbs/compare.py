"""`graft compare`: which way of adapting is worth it here?"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Options:
    """Let ways of adapting a model compete on your rows, fairly, and say which is worth it.

    Contestants are methods, sums of methods, and ways that are no fine-tuning (majority, tfidf, zero_shot, few_shot
    and others). NAME=METHOD gives one a name of its own; --NAME.setting with several values makes a contestant of each.
    The same command again goes on where a comparison was interrupted, and never repeats a finished trial. Exits with
    1 when no contestant finished.
    """

    model: Annotated[tuple[str, ...], "folders, Hugging Face ids, or names of bundled bases"]
    data: Annotated[tuple[str, ...], "files, folders, or Hugging Face ids: one board each"]
    contestants: Annotated[tuple[str, ...], "who takes part, as in: majority tfidf lora big=lora full"] = (
        "majority", "tfidf", "zero_shot", "head", "bitfit", "lora", "full",
    )  # fmt: skip
    settings: Annotated[dict[str, Any], "settings of the contestants; on the command line --NAME.setting"] = field(
        default_factory=dict
    )
    columns: Annotated[tuple[str, ...], "which column is which: one mapping for all data sets, or one for each"] = ()
    task: Annotated[str | None, "the task, where the columns do not say it"] = None
    template: Annotated[tuple[str, ...], "prompt template of generation tasks: one for all, or one for each"] = ()
    splits: Annotated[tuple[float, ...], "shares of train, validation, test for rows without splits"] = (0.8, 0.1, 0.1)
    allow: Annotated[tuple[str, ...], "complaints about the rows to live with"] = ()
    sizes: Annotated[tuple[int, ...], "numbers of train rows to compare at (0: all)"] = (0,)
    seeds: Annotated[tuple[int, ...], "of new tensors, of the order of the rows and of dropout"] = (0, 1, 2)
    trials: Annotated[int, "settings that each contestant may try, its learning rate first"] = 2
    match: Annotated[str | None, 'make contestants alike in size: "trainable=0.5%" or "memory=2GB"'] = None
    epochs: Annotated[float, "passes over the training rows"] = 3.0
    least_steps: Annotated[int, "optimizer steps at least, where few rows make few of them in all epochs"] = 100
    steps: Annotated[int | None, "optimizer steps, instead of epochs"] = None
    minutes: Annotated[float | None, "minutes of training for each, instead of epochs"] = None
    batch: Annotated[int, "rows in one optimizer step"] = 32
    accumulate: Annotated[
        int | Literal["auto"], "forward passes in a step; auto: as few as memory allows, doubled when it runs out"
    ] = "auto"
    length: Annotated[int | None, "tokens of a row at most; by default what the model takes, at most 1024"] = None
    schedule: Annotated[Literal["linear", "cosine", "constant"], "how the learning rate goes down"] = "linear"
    warmup: Annotated[float, "share of a run in which the learning rate rises"] = 0.06
    weight_decay: Annotated[float, "weight decay of matrices"] = 0.0
    clip: Annotated[float, "largest norm of the gradient"] = 1.0
    base_dropout: Annotated[bool, "keep the base's own dropout in training, where gradients go through it"] = True
    checkpointing: Annotated[bool, "compute activations again in the backward pass: less memory, more time"] = False
    dtype: Annotated[Literal["auto", "bf16", "fp32"], "of the base; auto: bf16 on a GPU that has it, else fp32"] = (
        "auto"
    )
    device: Annotated[str, "cpu, cuda, cuda:1, mps; auto: a GPU where there is one"] = "auto"
    checks: Annotated[int, "how often a run measures its validation loss"] = 3
    patience: Annotated[int, "checks without a better loss after which training stops (0: never)"] = 0
    validation_rows: Annotated[int, "validation rows to use at most (0: all); never more than train rows"] = 500
    test_rows: Annotated[int, "test rows to score at most (0: all)"] = 0
    metric: Annotated[str | None, "the metric that decides; by default the task's first"] = None
    general_text: Annotated[str | None, "text to measure forgetting on; by default Python's own"] = None
    ablate: Annotated[Literal["layers"] | None, "score every adapter without each span of its layers"] = None
    transfer: Annotated[bool, "score every adapter on the test rows of the other data sets too"] = False
    keep: Annotated[bool, "keep the adapters of the first seed"] = True
    workers: Annotated[int, "processes on this machine"] = 1
    ray: Annotated[str | None, 'address of a Ray cluster to run on; "local" starts one here'] = None
    folder: Annotated[Path, "folder of the comparison"] = Path("runs/compare")
    trust_remote_code: Annotated[bool, "run the code that comes with these models"] = False
    dry_run: Annotated[bool, "check everything, say what would be run, and stop"] = False


@dataclass(frozen=True)
class Result:
    """What a comparison showed; `standings` is empty after a dry run. `exit_code`: 1 when nobody finished."""

    folder: Path
    standings: dict[str, Any]
    planned: list[str]
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """The standings, as in standings.json; after a dry run, what would be run."""
        return self.standings or {"planned": self.planned}

    def show(self, console: "Console") -> None:
        """Print the answer, a table for each board, and where the page is."""
        from graft.tournament.terminal import show

        if not self.standings:
            for line in self.planned:
                console.print(line, soft_wrap=True, markup=False)
            return
        show(console, self.standings)
        console.print(f"\npage: {self.folder / 'page.html'}", soft_wrap=True, markup=False)


def run(options: Options) -> Result:
    """Read everything, play what is not finished yet, and work out the standings and the page."""
    import sys

    from graft import page
    from graft.tournament import admission, opening, playing, results, standings

    design = opening.designed(options)
    boards = opening.boards(design)
    refused = admission.refusals(design, boards, asked=options.contestants != Options.contestants)
    if options.dry_run:
        return Result(options.folder, {}, opening.planned(design, boards, refused))
    with results.claimed(options.folder):
        command = opening.recorded(options)
        done = playing.play(design, boards, options.folder, opening.crew(options), show=sys.stderr.isatty())
        found = standings.write(design, boards, done, options.folder, command)
        page.write(options.folder)
    answered = any(line["status"] == "done" for board in found["boards"] for line in board["lines"])
    return Result(options.folder, found, [], exit_code=0 if answered else 1)
