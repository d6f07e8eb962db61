"""Play a comparison to its end: which trials are next, who runs them, and their results on disk.

What comes next follows from the finished trials alone, so a comparison that was killed goes on where it was, by one
process, several, or a Ray cluster, and the order in which trials finish changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graft import metrics
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

    Raises KeyboardInterrupt when interrupted; what is finished stays.
    """
    done = results.finished(folder)
    running: set[str] = set()
    total = sum(expected(design, contestant) for contestant in design.contestants) * len(boards)
    with Bar("comparing", show) as bar, crew:
        while True:
            courses_now = [each for board in boards for each in courses(design, board, done).values()]
            waiting = {trial.id: trial for each in courses_now for trial in each.waiting}
            bar.update(len(done) / total, f"{len(done)} of {total} trials")
            ready = [trial for identity, trial in waiting.items() if identity not in running]
            for trial in ready[: crew.room - len(running)]:
                running.add(trial.id)
                first = trial.final and trial.seed == design.seeds[0]
                crew.begin(design, trial, results.folder_of(folder, trial.id) / results.ADAPTER
                           if design.keep and first else None)  # fmt: skip
            if not running:
                return done
            trial, finished = crew.next()
            running.remove(trial.id)
            done[trial.id] = results.write(folder, trial.id, about(design, trial), finished)


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
