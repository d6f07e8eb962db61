"""python -m benchmarks.methods run encoder | decoder | encoder_decoder, then `steps` and `table`; goes on where it was.

run     `graft compare` of every method at its defaults, with the untouched model, or its head alone, beside them;
        what else is given goes to it, as in `run encoder --seeds 0` for a first look
steps   how long a step of each takes on the encoder, over one of LoRA's in the same process at the same time
table   writes docs/methods-measured.md from what these two kept in --folder
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.acceptance.material import minilm
from benchmarks.methods import steps, table
from graft import catalogue
from graft.cli import main as graft
from graft.files import write_text

HERE = Path(__file__).parent
# What is not trained alone: it is made of adapters that are on the model, or for another one.
MADE_OF_OTHERS = ("adapter_fusion", "parallel", "plug_in", "offsite")
# HyperTuning reads answers as text; tokens made of whole rows are not for a decoder, whose must not know of later ones.
NOT_FOR = {"encoder": ("hypertuning",), "decoder": ("idpt", "upl")}
KNOW_TASKS = ("hyperformer", "hypertuning")  # rows have to say which task they are of: here all are of one
BESIDE = {
    "encoder": ("majority", "head", "full"),
    "decoder": ("zero_shot", "full"),
    "encoder_decoder": ("zero_shot", "full"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one part."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("run", "steps", "table"))
    parser.add_argument("kind", nargs="?", choices=tuple(BESIDE), help="of run: which model")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with trec")
    parser.add_argument("--folder", type=Path, default=Path("runs/bench-methods"), help="where everything is kept")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    given, further = parser.parse_known_args(argv)
    if further and given.what != "run":
        parser.error(f"{given.what} does not know {further[0]}")
    if given.what == "steps":
        return steps.measure(given.folder / "steps.json", contestants("encoder"))
    if given.what == "table":
        return table.write(given.folder)
    if given.kind is None:
        parser.error("run needs encoder, decoder or encoder_decoder")
    home = given.folder.resolve()  # a trial is known by its model's path
    model, data = material(given.kind, given.data, home)
    alone = [name for name in contestants(given.kind) if name not in KNOW_TASKS]
    of_tasks = [name for name in contestants(given.kind) if name in KNOW_TASKS]
    for rows, folder, names in (
        (data, given.kind, [*BESIDE[given.kind], *alone]),
        (named(data, home / "tasks" / given.kind), f"{given.kind}-tasks", of_tasks),
    ):
        recipe = ["compare", str(HERE / f"{given.kind}.yaml"), "--model", model, "--data", rows]
        more = ["--folder", str(home / folder), "--workers", str(given.workers), *further]
        if graft([*recipe, *more, "--contestants", *names]):
            return 1
    return 0


def contestants(kind: str) -> list[str]:
    """Every method that can be trained on its own on such a model."""
    without = (*MADE_OF_OTHERS, *NOT_FOR.get(kind, ()))
    return [name for name in catalogue.own() if name not in without]


def named(data: str, folder: Path) -> str:
    """The same rows, each with the name of its task."""
    for file in sorted(Path(data).glob("*.jsonl")):
        rows = map(json.loads, file.read_text(encoding="utf-8").splitlines())
        write_text(folder / file.name, "".join(json.dumps({**row, "task": "all"}) + "\n" for row in rows))
    return str(folder)


def material(kind: str, data: Path, folder: Path) -> tuple[str, str]:
    """The model and the rows of one comparison; the small encoder-decoder is made when it is not there."""
    if kind == "encoder":
        return minilm(), str(data / "trec")
    from graft.data import stdlib

    stdlib.build(folder / "data")
    if kind == "decoder":
        return "sprout", str(folder / "data")
    made = folder / "t5"
    if not (made / "model").is_dir():
        recipe = ["pretrain", str(HERE / "pretrained.yaml"), "--gather", str(folder / "text"), "--output", str(made)]
        if graft([*recipe, "--resume"]):
            raise SystemExit("the encoder-decoder could not be made")
    return str(made / "model"), str(folder / "data")


if __name__ == "__main__":
    sys.exit(main())
