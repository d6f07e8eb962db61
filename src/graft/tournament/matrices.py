"""What is read across contestants and boards: ranks, sweeps, ablations, transfer."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from graft import statistics
from graft.tournament.design import Design, Place
from graft.tournament.lines import line_of
from graft.tournament.playing import Board, courses

Table = Mapping[str, Any]


def ranks(tables: Sequence[Table], higher_is_better: bool) -> dict[str, Any] | None:
    """Average ranks over boards of the contestants that none refused; None below two boards or two contestants."""
    names = [line["contestant"] for line in tables[0]["lines"]]
    names = [name for name in names if all(line_of(table, name)["status"] != "refused" for table in tables)]
    matrix = np.array([[_score(line_of(table, name)) for name in names] for table in tables])
    if len(tables) < 2 or len(names) < 2 or np.isnan(matrix).all():
        return None
    found = statistics.rank(matrix, higher_is_better)
    return {
        **asdict(found), "contestants": names, "groups": [[names[at] for at in group] for group in found.groups],
    }  # fmt: skip


def _score(line: Table) -> float:
    """The score of a line; NaN, which ranks last, for a contestant that failed."""
    value = line["score"] and line["score"]["value"]
    return math.nan if value is None else value


def sweeps(design: Design, tables: Sequence[Table]) -> list[dict[str, Any]]:
    """The points of every sweep, board by board; the train rows of several boards are an axis by themselves."""
    found = []
    for name in dict.fromkeys(contestant.of for contestant in design.contestants if contestant.of):
        points = [contestant for contestant in design.contestants if contestant.of == name]
        axes = [{"name": axis, "values": list(dict.fromkeys(dict(point.at)[axis] for point in points))}
                for axis, _ in points[0].at]  # fmt: skip
        for table in tables:
            lines = [line_of(table, point.name) for point in points]
            found.append({
                "contestant": name, "board": table["id"], "axes": axes,
                "points": [{"at": [value for _, value in point.at], "score": line["score"],
                            "trainable": line["costs"].get("trainable")}
                           for point, line in zip(points, lines, strict=True)],
            })  # fmt: skip
    return found


def ablations(design: Design, boards: Sequence[Board], done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For every adapter of the first seed: the score without each span of its layers."""
    found = []
    for board in boards:
        for name, way in courses(design, board, done).items():
            first = next((done[trial.id].get("ablation") for trial in way.final[:1] if trial.id in done), None)
            if first and "refused" not in first:  # who has no parts at layers is in no picture
                found.append({"contestant": name, "board": board.id, **first})
    return found


def transfer(design: Design, boards: Sequence[Board], done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """For every contestant, base and size: trained on the row's data, scored on the column's, over seeds."""
    if not design.transfer:
        return []
    found = []
    sources = [rows.source for rows in design.data]
    for contestant in design.contestants:
        for model in range(len(design.models)):
            for size in design.sizes:
                rows = [_transferred(design, _board(boards, Place(model, data, size)), contestant.name, done, sources)
                        for data in range(len(sources))]  # fmt: skip
                if any(value is not None for row in rows for value in row):
                    found.append({"contestant": contestant.name, "model": design.models[model], "size": size,
                                  "data": sources, "scores": rows})  # fmt: skip
    return found


def _board(boards: Sequence[Board], place: Place) -> Board:
    """The board at a place; where its data has fewer rows than that, the one with all of them, which is its largest."""
    there = [each for each in boards if (each.place.model, each.place.data) == (place.model, place.data)]
    largest = max(there, key=lambda each: len(each.arena.rows(each.place.size)))
    return next((each for each in there if each.place == place), largest)


def _transferred(
    design: Design, board: Board, name: str, done: Mapping[str, Any], sources: Sequence[str]
) -> list[float | None]:
    finals = [done[trial.id] for trial in courses(design, board, done)[name].final if trial.id in done]
    own = sources[board.place.data]
    row = []
    for source in sources:
        values = [run.get("score") if source == own else run.get("transfer", {}).get(source) for run in finals]
        known = [value for value in values if value is not None]
        row.append(sum(known) / len(known) if known else None)
    return row
