"""Play a comparison to its end: which trials are next, who runs them, and their results on disk.

What comes next follows from the finished trials alone, so a comparison that was killed goes on where it was, by one
process, several, or a Ray cluster, and the order in which trials finish changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft import metrics
from graft.memory import settled
from graft.progress import Bar
from graft.tournament import results
from graft.tournament.arena import Arena
from graft.tournament.crew import Crew
from graft.tournament.design import Design, Place, Trial
from graft.tournament.running import headline
from graft.tournament.search import Course, course, expected


@dataclass(frozen=True)
class Board:
    """One place with a name, and the arena where its contestants meet."""

    id: str
    place: Place
    arena: Arena


def play(design: Design, boards: list[Board], folder: Path, crew: Crew, show: bool = False) -> dict[str, Any]:
    """Run every trial that is not finished yet, and give the results of all by id.

    Raises KeyboardInterrupt, with what is done, when interrupted; what is finished stays.
    """
    with crew:
        done = results.finished(folder)
        try:
            with settled(), Bar("comparing", show) as bar:
                _play(design, boards, folder, crew, done, bar)
        except KeyboardInterrupt as error:
            _, told = progress(design, boards, done)
            raise KeyboardInterrupt(f"{told} are done and kept; the same command goes on from there") from error
    return done


def _play(design: Design, boards: list[Board], folder: Path, crew: Crew, done: dict[str, Any], bar: Bar) -> None:
    """Run what is not in `done`, which every result is added to."""
    running: set[str] = set()
    while True:
        bar.update(*progress(design, boards, done))
        ways = [way for board in boards for way in courses(design, board, done).values()]
        ready = {trial.id: trial for way in ways for trial in way.waiting if trial.id not in running}
        for trial in list(ready.values())[: crew.room - len(running)]:
            running.add(trial.id)
            first = trial.final and trial.seed == design.seeds[0]
            crew.begin(design, trial, results.folder_of(folder, trial.id) / results.ADAPTER
                       if design.keep and first else None)  # fmt: skip
        if not running:
            return
        trial, finished = crew.next()
        running.remove(trial.id)
        done[trial.id] = results.write(folder, trial.id, about(design, trial), finished)


def progress(design: Design, boards: list[Board], done: dict[str, Any]) -> tuple[float, str]:
    """The share of all trials that is done, and how many of how many; who failed early has fewer."""
    finished = total = 0
    for board in boards:
        ways = courses(design, board, done)
        for contestant in design.contestants:
            way = ways[contestant.name]
            trials = [*way.rungs, *way.final]
            finished += sum(trial.id in done for trial in trials)
            total += expected(design, contestant) if way.waiting else len(trials)
    return finished / total, f"{finished} of {total} trials"


def courses(design: Design, board: Board, done: Mapping[str, Any]) -> dict[str, Course]:
    """Each contestant's way through a board."""
    higher = metrics.get(headline(design, board.arena)).higher_is_better
    return {
        contestant.name: course(design, board.place, contestant, board.arena.facts, done, higher)
        for contestant in design.contestants
    }


def about(design: Design, trial: Trial) -> dict[str, Any]:
    """What a trial was, for whoever looks into its folder."""
    return {
        "contestant": trial.contestant.as_json(), "candidate": dict(trial.candidate), "seed": trial.seed,
        "share": trial.share, "final": trial.final, "model": design.models[trial.place.model],
        "data": design.data[trial.place.data].source, "size": trial.place.size,
    }  # fmt: skip
