"""`graft evaluate`: scores on rows, and an adapter's against its base."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console

    from graft.scoring.evaluation import Evaluation


@dataclass(frozen=True)
class Options:
    """Score a model on rows; with an adapter, both on the same rows: differences, intervals, items that flipped.

    Exits with 1 under --gate when the metric that decides does not show that the adapter helps.
    """

    model: Annotated[str, "folder, Hugging Face id, or name of a bundled base"]
    data: Annotated[str, "file, folder, test=a.jsonl, or Hugging Face id"]
    adapter: Annotated[str | None, "folder or Hugging Face id of an adapter; without, the base alone is scored"] = None
    columns: Annotated[str | None, 'which column is which, as in "text=sentence,label=polarity"'] = None
    task: Annotated[str | None, "the task, where neither the adapter nor the columns say it"] = None
    template: Annotated[str | None, "prompt template of a generation task, where no adapter has one"] = None
    split: Annotated[
        Literal["test", "validation", "train"] | None, "rows to score; by default test, else validation"
    ] = None
    allow: Annotated[tuple[str, ...], "complaints about the rows to live with"] = ()
    rows: Annotated[int, "rows to score at most (0: all)"] = 0
    batch: Annotated[int, "rows at once; halved when memory runs out"] = 32
    length: Annotated[int | None, "tokens of a row at most, where no adapter says it"] = None
    dtype: Annotated[Literal["auto", "bf16", "fp32"], "of the base; auto: bf16 on a GPU that has it, else fp32"] = (
        "auto"
    )
    device: Annotated[str, "cpu, cuda, cuda:1, mps; auto: a GPU where there is one"] = "auto"
    seed: Annotated[int, "of the resamples, the choice of rows, and a head that the base lacks"] = 0
    metric: Annotated[str | None, "the metric that decides; by default the task's first"] = None
    gate: Annotated[bool, "exit with 1 when it is not shown that the adapter helps"] = False
    general_text: Annotated[str | None, "text to measure forgetting on; by default Python's own language reference"] = (
        None
    )
    items: Annotated[Path | None, "write one row per item to this .parquet file"] = None
    force: Annotated[bool, "use the adapter on another base than it was made for"] = False
    trust_remote_code: Annotated[bool, "run the code that comes with this model"] = False


@dataclass(frozen=True)
class Result:
    """What was found, and whether a gate was failed."""

    found: "Evaluation"
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """Scores, or the outcome against the base, with notes."""
        scores = {name: value.as_json() for name, value in self.found.scores.items()}
        both = {"outcome": self.found.outcome, "forgetting": self.found.forgot}
        told = {name: value.as_json() for name, value in both.items() if value is not None}
        rows = {"task": self.found.task.kind, "rows": len(self.found.rows)}
        return {**rows, **({"scores": scores} if scores else {}), **told, "notes": self.found.notes,
                "passed": self.exit_code == 0}  # fmt: skip

    def show(self, console: "Console") -> None:
        """Print a table of metrics, the verdict, and what to know."""
        from rich.text import Text

        from graft.scoring import show_outcome, show_scores

        console.print(f"{self.found.task.kind}, {len(self.found.rows):,} rows\n", highlight=False)
        if self.found.scores:
            show_scores(console, self.found.scores)
        for each in (self.found.outcome, self.found.forgot):
            if each is not None:
                show_outcome(console, each)
                console.print()
        for note in self.found.notes:
            console.print(Text(f"note: {note}", "dim"), soft_wrap=True)
        if self.exit_code:
            console.print(Text("gate failed: it is not shown that the adapter helps", "red"))


def run(options: Options) -> Result:
    """Score, and compare where there is an adapter. Raises BadInput for a gate without an adapter."""
    import sys

    from graft.errors import BadInput
    from graft.limits import check_numbers
    from graft.loading import find_base
    from graft.scoring import write_items
    from graft.scoring.evaluation import evaluate
    from graft.training.space import check_writable

    check_numbers(options, {"rows": 0, "batch": 1, "seed": 0})
    if options.items is not None:
        if options.items.suffix != ".parquet":
            raise BadInput(f"--items {options.items}: give a name that ends in .parquet, which is what is written.")
        check_writable(options.items.parent)
    if options.adapter is None and (options.gate or options.general_text):
        raise BadInput("--gate and --general-text compare an adapter with its base: give an --adapter.")
    found = evaluate(
        find_base(options.model, options.trust_remote_code), options.adapter, options.data, split=options.split,
        limit=options.rows, batch=options.batch, dtype=options.dtype, device=options.device, seed=options.seed,
        length=options.length, metric=options.metric, general=options.general_text, force=options.force,
        show=sys.stderr.isatty(), columns=options.columns, task=options.task, template=options.template,
        allow=options.allow,
    )  # fmt: skip
    if options.items is not None:
        names = list(found.outcome.comparisons) if found.outcome else list(found.scores)
        write_items(options.items, found.systems, [row.where for row in found.rows], names)
    failed = options.gate and found.outcome is not None and not found.outcome.helped
    return Result(found, 1 if failed else 0)
