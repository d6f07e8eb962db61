"""`graft demo`: the whole of it on this machine, with nothing to download: a real model, real data, one page."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from graft.verbs import compare

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 3

# Chosen once on validation rows: half a minute on a small model wants larger steps than the methods' own defaults.
SETTINGS: dict[str, dict[str, Any]] = {
    "zero_shot": {},
    "few_shot": {},
    "lora": {"sites": "all-linear", "lr": 5e-3},
    "pfeiffer": {"lr": 3e-3},
    "prefix_tuning": {"reparameterize": True, "lr": 0.3},  # of which the network takes a hundredth
    "bitfit": {"lr": 1e-2},
}


@dataclass(frozen=True)
class Options:
    """Compare six ways to have the bundled base describe functions of your own Python's standard library.

    Every method gets the same short time, one seed and no search for settings: a demonstration of `graft compare`.
    """

    contestants: Annotated[tuple[str, ...], "who takes part, as in `graft compare`"] = tuple(SETTINGS)
    seconds: Annotated[float, "training time of each"] = 30.0
    rows: Annotated[int, "held-out rows to score on"] = 100
    base: Annotated[str, "the model to adapt: a bundled base, a folder, or a Hugging Face id"] = "sprout"
    folder: Annotated[Path, "where the data, the adapters and the page go"] = Path("demo")
    seed: Annotated[int, "of new tensors and of the order of the rows"] = 0


@dataclass(frozen=True)
class Result:
    """What the demonstration showed."""

    options: Options
    compared: compare.Result
    samples: list[dict[str, Any]]
    exit_code: int = 0

    def as_json(self) -> dict[str, Any]:
        """The standings of the comparison, and samples."""
        return {**self.compared.as_json(), "seconds": self.options.seconds, "samples": self.samples}

    def show(self, console: "Console") -> None:
        """Print the table, samples side by side, the page, and how to use an adapter."""
        from rich.text import Text

        from graft.scoring import show_samples

        said = f"{self.options.base} describes functions of the standard library that it has not seen"
        console.print(Text(f"{said}: one seed, no search, {self.options.seconds:.0f} s of training each.\n"))
        show_samples(console, self.samples, self.options.contestants)
        self.compared.show(console)
        adapters = sorted((self.options.folder / "trials").glob("*/adapter"))
        if adapters:
            words = f"graft generate --model {self.options.base} --adapter {adapters[0]} --prompt 'def area(r): …'"
            console.print(Text("use one: ", "bold").append(words, "bold cyan"), soft_wrap=True)


def run(options: Options) -> Result:
    """Build the set from the standard library, and compare."""
    from graft.data import stdlib
    from graft.limits import check_numbers
    from graft.tournament.contestant import assembled

    check_numbers(options, {"rows": 1, "seed": 0}, ("seconds",))
    settings = {name: {key: (value,) for key, value in SETTINGS[name].items()}
                for name in options.contestants if SETTINGS.get(name)}  # fmt: skip
    assembled(options.contestants, settings)  # a wrong name is told before the set is built
    stdlib.build(options.folder / "data", options.seed)
    compared = compare.run(compare.Options(
        model=(options.base,), data=(str(options.folder / "data"),), contestants=options.contestants,
        settings=settings, task="generation", allow=("cut",), seeds=(options.seed,), trials=1,
        minutes=options.seconds / 60, batch=16, validation_rows=100, test_rows=options.rows, folder=options.folder,
    ))  # fmt: skip
    return Result(options, compared, _samples(options), compared.exit_code)


def _samples(options: Options) -> list[dict[str, Any]]:
    """Items chosen by the seed alone, not by how well they came out."""
    import random

    import pyarrow.parquet as pq

    from graft.tournament.standings import ITEMS

    rows = pq.read_table(options.folder / ITEMS).to_pylist()
    chosen = sorted(random.Random(options.seed).sample(range(len(rows)), min(SHOWN, len(rows))))
    return [
        {"input": rows[at]["input"], "reference": rows[at]["reference"],
         **{name: rows[at][f"{name}.output"] for name in options.contestants}}
        for at in chosen
    ]  # fmt: skip
