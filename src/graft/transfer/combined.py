"""From the options of `graft combine` to an adapter's folder."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from graft import checkpoint, data
from graft.attach import Adapter, attach, probe
from graft.composition import Average, Frozen, Stack
from graft.data.columns import nearest
from graft.data.task import Task
from graft.decode.speaker import WRITES
from graft.errors import BadInput
from graft.loading import Source, find_base, load_base, load_generator
from graft.method import Method
from graft.methods.hypertuning import texts
from graft.methods.parallel import Parallel
from graft.spelling import spelled
from graft.transfer.given import Given, one_base, one_task, read
from graft.transfer.plugged import refuse_taken

if TYPE_CHECKING:
    from graft.verbs.combine import Options

Rows = tuple[tuple[int, ...], ...]


def write(options: "Options") -> tuple[dict[str, Any], list[str], str]:
    """Make one adapter of several, and write it: a summary, what to know, and the command to use it.

    Raises BadInput and Refused, before the base is loaded where its folder tells, for adapters that do not go together,
    and NotApplied where together they do nothing.
    """
    _refuse_options(options)
    given = read(options.adapters, options.name)
    if any(each.place.resolve().is_relative_to(options.output.resolve()) for each in given):
        raise BadInput(f"{options.output} holds one of the adapters. Choose another --output.")
    refuse_taken(options.output)
    base = options.model or one_base(given)
    task = one_task(given, options.how)
    source = find_base(base, options.trust_remote_code)
    model = _model(source, task, given, options)
    live = [checkpoint.load(model, each.place, each.name, force=options.force) for each in given]
    examples = _examples(options, task, source, model)
    made = attach(model, _value(options, given, live, examples), options.name)
    probe(model, made.name)
    about = {"how": options.how, "adapters": list(options.adapters), "weights": list(options.weights)}
    extra = {**_kept(given), "base": base, "combined": about | ({"task": options.task} if options.task else {})}
    if task is not None:
        extra["task"] = task.as_dict()
    folder = checkpoint.save(model, made.name, options.output, tokenizer=source.tokenizer, extra=extra)
    summary = {
        "how": options.how, "adapters": ", ".join(options.adapters), "base": base, "method": spelled(made.method),
        "coverage": "; ".join(made.reach()), "stored": f"{made.counts.stored / 1024:,.1f} KiB", "adapter": str(folder),
    }  # fmt: skip
    remarks = [f"{each.name}: {remark}" for each in live for remark in each.remarks]
    return summary, [*remarks, *_notes(options.how, given)], _command(base, folder, task, made, given)


def _refuse_options(options: "Options") -> None:
    """Refuse what the options alone tell."""
    how, count = options.how, len(options.adapters)
    if how == "frozen" and count != 1:
        raise BadInput(f"--how frozen takes one adapter, that knows tasks or reads examples, and {count} were given.")
    if how != "frozen" and count < 2:
        raise BadInput(f"--how {how} takes at least two adapters, and {count} was given. Give another folder.")
    if how != "frozen" and options.task is not None:
        raise BadInput(f"--task says which task is frozen, and --how {how} has no use for it. Leave it out.")
    if options.examples is not None and (how != "frozen" or options.task is not None):
        raise BadInput("--examples are for --how frozen, in the place of --task. Leave one of them out.")
    if options.weights and how not in ("average", "parallel"):
        raise BadInput(f"--weights are for average and parallel, and --how {how} has no use for them. Leave them out.")
    if len(options.weights) not in (0, count) or not all(map(math.isfinite, options.weights)):
        said = " ".join(map(str, options.weights))
        raise BadInput(f"--weights {said}: {count} adapters take {count} finite numbers, or none for all alike.")


def _model(source: Source, task: Task | None, given: Sequence[Given], options: "Options") -> nn.Module:
    if task is None:
        return load_generator(source, dtype=options.dtype, device=options.device)
    seed = int(given[-1].kept.get("seed", 0))
    return load_base(source, task, dtype=options.dtype, device=options.device, seed=seed).model


def _examples(options: "Options", task: Task | None, source: Source, model: nn.Module) -> Rows:
    """The token ids of the example rows, each with its answer, as the adapter read such rows in training."""
    if options.examples is None:
        return ()
    if task is None:
        raise BadInput(f"{options.adapters[0]} does not say what its rows were made of. Give graft.Frozen token ids.")
    rows = data.load(str(options.examples), splits="test").test
    batch = task.collate(task.features(rows, source.tokenizer, train=True), source.tokenizer)
    return tuple(map(tuple, texts(batch, bool(model.config.is_encoder_decoder))))  # type: ignore[union-attr]


def _value(options: "Options", given: Sequence[Given], live: Sequence[Adapter], examples: Rows) -> Method:
    names = tuple(each.name for each in given)
    if options.how == "stack":
        return Stack(names)
    if options.how != "frozen":
        return (Average if options.how == "average" else Parallel)(names, tuple(options.weights))
    tasks, folder = live[0].tasks, given[0].folder
    if examples:
        return Frozen(names[0], examples=examples)
    if options.task is None and len(tasks) > 1:
        raise BadInput(f"{folder} knows the tasks {', '.join(tasks)}, and none was named: add --task {tasks[0]}.")
    if options.task is not None and options.task not in tasks:
        knows = f"it knows {', '.join(tasks)}{nearest(options.task, tasks)}" if tasks else "it knows none: leave it out"
        raise BadInput(f"--task {options.task}: {folder} has no such task; {knows}.")
    return Frozen(names[0], options.task)


def _kept(given: Sequence[Given]) -> dict[str, Any]:
    """What is kept of them: the seed of the last, whose head it is in a stack, and the rows that each has seen."""
    seen = [each.kept["data"] for each in given if each.kept.get("data")]
    found = {"seed": given[-1].kept["seed"]} if "seed" in given[-1].kept else {}
    if seen:
        others = [data for data in seen[1:] if data.get("sha256") != seen[0].get("sha256")]
        found["data"] = {**seen[0], **({"others": others} if others else {})}
    return found


def _notes(how: str, given: Sequence[Given]) -> list[str]:
    found = ["nothing was trained: whether it helps is for `graft evaluate` to say"]
    if how == "average" and len({each.kept.get("seed") for each in given}) > 1:
        found.append("an average is meant for adapters that began alike, and these began from different seeds")
    if how == "stack" and sum(each.head for each in given) > 1:
        found.append(f"the task head is that of {given[-1].folder}; those of the others are left out")
    hashes = {each.kept["data"].get("sha256") for each in given if each.kept.get("data")}
    if len(hashes) > 1:
        found.append("the adapters were trained on different rows: what any of them was trained on is not scored")
    return found


def _command(base: str, folder: Path, task: Task | None, made: Adapter, given: Sequence[Given]) -> str:
    """How to use the adapter."""
    words = ["--model", base, "--adapter", str(folder)]
    if task is None or task.kind in WRITES:
        named = ["--task", made.tasks[0]] if made.tasks else []
        return shlex.join(["graft", "generate", *words, *named, "--prompt", "…"])
    source = next((each.kept["data"]["source"] for each in given if each.kept.get("data")), "rows.jsonl")
    return shlex.join(["graft", "evaluate", *words, "--data", str(source)])
