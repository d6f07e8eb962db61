"""From the options of `graft compare` to a design and its boards: all is read and checked, nothing is trained."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from graft import metrics
from graft.errors import BadInput
from graft.files import write_text
from graft.limits import SEEDS, check_numbers
from graft.loading import chosen_device, fast_bf16, in_bf16
from graft.method import Method
from graft.scoring import general_text
from graft.titles import title
from graft.tournament.admission import Refusals
from graft.tournament.arena import Arenas
from graft.tournament.cluster import Cluster
from graft.tournament.contestant import Contestant, assembled
from graft.tournament.crew import Alone, Crew
from graft.tournament.design import Design, Place, Rows
from graft.tournament.matching import budget, matched
from graft.tournament.playing import Board
from graft.tournament.processes import Processes
from graft.tournament.running import headline
from graft.tournament.search import candidates, expected
from graft.training.options import TrainingOptions

if TYPE_CHECKING:
    from graft.verbs.compare import Options

RECIPE = "recipe.yaml"
OF_A_CALL = ("dry_run", "workers", "ray", "settings")  # of one call, not of the comparison


def designed(options: "Options") -> Design:
    """The design that the options ask for. Raises BadInput for what cannot be compared."""
    _check(options)
    ways = tuple(assembled(options.contestants, options.settings))
    autocast = _autocast(options, ways)
    rows = zip(options.data, _each(options.columns, options.data, "columns"),
               _each(options.template, options.data, "template"), strict=True)  # fmt: skip
    design = Design(
        models=options.model, data=tuple(Rows(*each) for each in rows), contestants=ways,
        training=_training(options, autocast), task=options.task, splits=options.splits, allow=options.allow,
        sizes=options.sizes, seeds=options.seeds, trials=options.trials, least_steps=options.least_steps,
        validation_rows=options.validation_rows, test_rows=options.test_rows, length=options.length,
        metric=options.metric, general_text=options.general_text, ablate=options.ablate == "layers",
        transfer=options.transfer, keep=options.keep, dtype="fp32" if autocast else options.dtype,
        device=options.device, trust_remote_code=options.trust_remote_code,
    )  # fmt: skip
    return design if options.match is None else _matched(design, options.match)


def _check(options: "Options") -> None:
    least = {"trials": 1, "least_steps": 1, "workers": 1, "validation_rows": 0, "test_rows": 0}
    check_numbers(options, least, ("minutes",))
    lists = {name: getattr(options, name) for name in ("model", "data", "contestants", "sizes", "seeds")}
    if missing := [name for name, values in lists.items() if not values]:
        raise BadInput(f"{', '.join(missing)}: give at least one. A comparison needs a model, rows and contestants.")
    for name in ("sizes", "seeds", "model", "data"):
        if len(set(lists[name])) < len(lists[name]):
            raise BadInput(f"{name}: {', '.join(map(str, lists[name]))} holds one twice, which would count it twice.")
    if min(options.sizes) < 0:
        raise BadInput(f"sizes: {min(options.sizes)} is no number of rows; 0 means all.")
    if odd := [seed for seed in options.seeds if not 0 <= seed < SEEDS]:
        raise BadInput(f"seeds: {', '.join(map(str, odd))} is no seed; they are whole numbers from 0 to 2^32 − 1.")
    if options.ray is not None and options.workers > 1:
        raise BadInput("--ray runs trials on a cluster and --workers on this machine: give one of them.")
    if options.transfer and len(options.data) < 2:
        raise BadInput("--transfer scores adapters on the other data sets: give several with --data.")
    if options.metric:
        metrics.get(options.metric)
    if options.general_text is not None:
        general_text(options.general_text)
    if options.match is not None:
        budget(options.match)
        if len(options.model) > 1:
            raise BadInput("--match makes contestants alike on one base; compare at one --model at a time.")


def _autocast(options: "Options", ways: Sequence[Contestant]) -> bool:
    """What trains in place trains in fp32; its arithmetic is then in bf16 by autocast, and everyone's with it."""
    device = chosen_device(options.device)
    in_place = any(term.in_place for each in ways if isinstance(each.way, Method) for term in each.way.methods())
    return (options.dtype == "auto" and fast_bf16(device)) or (in_place and in_bf16(options.dtype, device))


def _training(options: "Options", autocast: bool) -> TrainingOptions:
    return TrainingOptions(
        epochs=options.epochs, steps=options.steps, seconds=None if options.minutes is None else 60 * options.minutes,
        batch=options.batch, accumulate=options.accumulate, schedule=options.schedule, warmup=options.warmup,
        weight_decay=options.weight_decay, clip=options.clip, base_dropout=options.base_dropout,
        checkpointing=options.checkpointing,
        checks=options.checks, patience=options.patience, autocast=autocast,
    )  # fmt: skip


def _matched(design: Design, target: str) -> Design:
    """The design with contestants as large as the target allows."""
    arena = Arenas(design).at(design.places()[0])
    longest = min(design.length or arena.task.max_length, arena.task.max_length)
    alike, notes = matched(design.contestants, target, arena.model, batch=design.training.batch, tokens=longest)
    return replace(design, contestants=tuple(alike), notes=(f"Contestants are matched by {target}.", *notes))


def boards(design: Design) -> list[Board]:
    """Every board, its rows read and checked. Raises BadInput where their metrics differ.

    Data with fewer rows than several sizes ask for has one board with all of them, and its card says so.
    """
    arenas = Arenas(design)
    places: dict[tuple[int, int, int], Place] = {}
    for place in design.places():
        arena = arenas.at(place)
        rows = len(arena.rows(place.size))
        first = places.setdefault((place.model, place.data, rows), place)
        if first is not place:
            arena.notes.append(f"it has {rows:,} train rows: sizes {first.size or 'all'} and {place.size or 'all'} "
                               "are one board.")  # fmt: skip
    names = [_named(design, place.model, place.data, place.size) for place in places.values()]
    twice = {name for name, times in Counter(names).items() if times > 1}
    found = [
        Board(f"{name}-{at}" if name in twice else name, place, arenas.at(place))
        for at, (name, place) in enumerate(zip(names, places.values(), strict=True))
    ]
    deciding = {headline(design, board.arena): board.id for board in found}
    if len(deciding) > 1:
        told = ", ".join(f"{metric} on {board}" for metric, board in deciding.items())
        raise BadInput(f"the boards have different metrics ({told}). Name one that serves all with --metric.")
    return found


def crew(options: "Options") -> Crew:
    """Who runs the trials."""
    if options.ray is not None:
        return Cluster(options.ray)
    return Processes(options.workers) if options.workers > 1 else Alone()


def _named(design: Design, model: int, data: int, size: int) -> str:
    """A board's name: what distinguishes it from the others, and its data in any case."""
    parts = [title(design.data[data].source)]
    parts += [title(design.models[model])] if len(design.models) > 1 else []
    parts += [str(size or "all")] if len(design.sizes) > 1 else []
    return "-".join(parts)


def _each(values: Sequence[str], data: Sequence[str], name: str) -> Sequence[str | None]:
    """One value for each data set: one for all, or as many as there are."""
    if len(values) not in (0, 1, len(data)):
        raise BadInput(f"{name}: {len(values)} for {len(data)} data sets; give one for all, or one for each.")
    return [None] * len(data) if not values else list(values) * (len(data) if len(values) == 1 else 1)


def planned(design: Design, boards: Sequence[Board], refused: Refusals) -> list[str]:
    """What would be run, a line for each board and contestant; and who cannot enter where."""
    lines = []
    for board in boards:
        rows = board.arena.rows(board.place.size)
        metric = headline(design, board.arena)
        numbers = f"{len(rows):,} train, {len(board.arena.test):,} test rows"
        lines.append(f"{board.id}: {board.arena.task.kind}, {numbers}, by {metric}")
    for contestant in design.contestants:
        tried = [", ".join(f"{key} {value}" for key, value in each) for each in candidates(contestant, design.trials)]
        lines.append(
            f"  {contestant.name}: {expected(design, contestant)} trials on each"
            + (f"; tries {'; '.join(tried)}" if any(tried) else "")
        )
        lines += [f"    refused on {board}: {why}" for board, why in refused.get(contestant.name, {}).items()]
    total = len(boards) * sum(expected(design, contestant) for contestant in design.contestants)
    return [*lines, f"{total} trials in all"]


def recorded(options: "Options") -> str:
    """Keep the options as a recipe in the folder, and give the command that repeats the comparison.

    Trials that an earlier comparison left there are used again.
    """
    recipe: dict[str, Any] = {
        field.name: _plain(getattr(options, field.name)) for field in fields(options) if field.name not in OF_A_CALL
    }
    recipe |= {name: {key: _plain(values) for key, values in given.items()} for name, given in options.settings.items()}
    write_text(options.folder / RECIPE, yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True))
    return f"graft compare {options.folder / RECIPE}"


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
