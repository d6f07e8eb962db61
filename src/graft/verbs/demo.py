"""`graft demo`: the whole of it on this machine, with nothing to download: a real model, real data, the base beside."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if TYPE_CHECKING:
    from rich.console import Console

    from graft.training.demonstration import Entry

SHOWN = 3

# Chosen once on validation rows: half a minute on a small model wants larger steps than the methods' own defaults.
SETTINGS: dict[str, tuple[dict[str, Any], float]] = {
    "lora": ({"sites": "all-linear"}, 5e-3),
    "pfeiffer": ({}, 3e-3),
    "prefix_tuning": ({"reparameterize": True}, 3e-3),
    "bitfit": ({}, 1e-2),
}


@dataclass(frozen=True)
class Options:
    """Adapt the bundled base to describe functions of your own Python's standard library, in a few minutes.

    Every method gets the same short time, one seed and no search for settings: a demonstration, not a comparison.
    """

    methods: Annotated[tuple[str, ...], "which ways to adapt"] = tuple(SETTINGS)
    seconds: Annotated[float, "training time of each"] = 30.0
    rows: Annotated[int, "held-out rows to score on"] = 200
    base: Annotated[str, "the model to adapt: a bundled base, a folder, or a Hugging Face id"] = "sprout"
    folder: Annotated[Path, "where the data and the adapters go"] = Path("demo")
    seed: Annotated[int, "of new tensors and of the order of the rows"] = 0


@dataclass(frozen=True)
class Result:
    """What the demonstration showed."""

    options: Options
    rows: dict[str, int]
    base: dict[str, float]
    entries: "list[Entry]"
    samples: list[dict[str, Any]]
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """Costs and scores of every method, and the samples."""
        return {
            "base": self.options.base, "seconds": self.options.seconds, "seed": self.options.seed, "rows": self.rows,
            "methods": {
                entry.name: {
                    "trainable": entry.trainable, "stored_bytes": entry.stored, "steps": entry.fit.steps,
                    "training_seconds": round(entry.fit.seconds, 1), "peak_memory_bytes": entry.fit.peak_memory,
                    "scores": entry.outcome.as_json(), "folder": str(entry.folder),
                }
                for entry in self.entries
            },
            "samples": self.samples,
        }  # fmt: skip

    def show(self, console: "Console") -> None:
        """Print one table, samples side by side, and where the adapters are."""
        from rich.filesize import decimal
        from rich.table import Table
        from rich.text import Text

        from graft.scoring import show_samples

        table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
        for title in ("", "trainable", "stored", "time", "memory", "perplexity", "ROUGE-L", "gain, 95 %"):
            table.add_column(title, justify="left" if not title else "right", no_wrap=True)
        table.add_row("base", "0", "", "", "", f"{self.base['perplexity']:.1f}", f"{self.base['rougeL']:.1f}", "")
        for entry in self.entries:
            rouge, gain = entry.outcome.comparisons["rougeL"], entry.outcome.comparisons["rougeL"].difference
            table.add_row(
                entry.name, f"{entry.trainable:,}", decimal(entry.stored), f"{entry.fit.seconds:.0f} s",
                decimal(entry.fit.peak_memory), f"{entry.outcome.comparisons['perplexity'].other.value:.1f}",
                f"{rouge.other.value:.1f}",
                Text(f"{gain.value:+.1f} ({gain.low:.1f} to {gain.high:.1f})", _style(rouge.outcome)),
            )  # fmt: skip
        console.print(
            Text(f"{self.options.base} on {self.rows['test']:,} functions of the standard library it has not seen,"),
            Text(f"one seed, no search, {self.options.seconds:.0f} s each; 95 % intervals of the difference."),
            "", table, "", sep="\n",
        )  # fmt: skip
        show_samples(console, self.samples, ("base", *(entry.name for entry in self.entries)))
        for entry in self.entries:
            console.print(Text(f"{entry.name}: {entry.folder}"), soft_wrap=True)
        if self.entries:
            adapter = self.entries[0].folder
            use = f"graft generate --model {self.options.base} --adapter {adapter} --prompt 'def area(r): …'"
            console.print(Text("use one: ", "bold").append(use, "bold cyan"), soft_wrap=True)


def run(options: Options) -> Result:
    """Build the set from the standard library, score the base, tune and score each method."""
    import random
    import sys

    from rich.console import Console

    from graft.data import check, load, stdlib
    from graft.data import fit as fit_task
    from graft.limits import check_numbers
    from graft.loading import find_base, load_base
    from graft.method import named
    from graft.metrics import get
    from graft.training.demonstration import METRICS, Contestant, demonstrate
    from graft.training.tuning import Study

    check_numbers(options, {"rows": 1, "seed": 0}, ("seconds",))
    contestants = {}
    for name in options.methods:
        settings, rate = SETTINGS.get(name, ({}, None))
        contestants[name] = Contestant(named(name, {name: settings}), rate)
    stdlib.build(options.folder / "data", options.seed)
    source = find_base(options.base)
    data = load(str(options.folder / "data"), task="generation")
    task = fit_task(data, source.tokenizer, source.config)
    data, _ = check(data, task, source.tokenizer, allow=("cut",))
    base = load_base(source, task, seed=options.seed)
    test = sorted(random.Random(options.seed).sample(range(len(data.test)), min(options.rows, len(data.test))))
    study = Study(
        base.model, base.tokenizer, task, data.train, data.validation[:100], [data.test[at] for at in test],
        source={"source": "the standard library", "sha256": data.hash},
    )  # fmt: skip
    console = Console(stderr=True)
    before, entries = demonstrate(
        study, contestants, options.seconds, options.folder,
        seed=options.seed, show=sys.stderr.isatty(), tell=console.print,
    )  # fmt: skip
    scores = {name: get(name).score(before).value for name in METRICS}
    chosen = sorted(random.Random(options.seed).sample(range(len(before)), min(SHOWN, len(before))))
    samples = [
        {**{k: before[at][k] for k in ("input", "reference")}, "base": before[at]["output"],
         **{entry.name: entry.records[at]["output"] for entry in entries}}
        for at in chosen
    ]  # fmt: skip
    rows = {"train": len(study.train), "validation": len(study.validation), "test": len(study.test)}
    return Result(options, rows, scores, entries, samples)


def _style(found: str) -> str:
    return {"better": "green", "worse": "red"}.get(found, "yellow")
