"""A trial: whatever happens in it, the base is afterwards what it was, and what it has to say is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch

from graft.tournament import costs, running
from graft.tournament.arena import Arena
from graft.tournament.contestant import assembled
from graft.tournament.design import Design, Place, Rows, Trial
from graft.training.options import TrainingOptions


def trial(home: Path, name: str, base: str = "bert", rows: str = "classes", **settings: Any) -> tuple[Any, ...]:
    """A design of one contestant, its final trial, and the arena."""
    ways = tuple(assembled([name], {name: {key: (value,) for key, value in settings.items()}}))
    made = Design((str(home / base),), (Rows(str(home / rows)),), ways, TrainingOptions(steps=3, batch=8), length=32,
                  dtype="fp32")  # fmt: skip
    return made, Trial(Place(0, 0, 0), ways[0], (), 0, 1.0, final=True), Arena(made, made.models[0], 0)


def test_a_base_is_as_it_was_when_measuring_it_merged_fails(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = trial(home, "lora", lr=0.1)
    arena = given[-1]
    arena.begin(0)
    before = {name: tensor.clone() for name, tensor in arena.model.state_dict().items()}
    measured = costs.latency
    calls = iter([measured])  # attached it is measured, merged it is not

    def latency(*given: Any) -> float:
        if (real := next(calls, None)) is None:
            raise MemoryError("too much")
        return real(*given)

    monkeypatch.setattr(costs, "latency", latency)
    result = running.run(*given).result
    assert result["status"] == "failed" and "too much" in result["error"]
    after = arena.model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_examples_that_do_not_fit_are_told(home: Path) -> None:
    result = running.run(*trial(home, "few_shot", "llama", "answers", k=16)).result
    assert result["status"] == "done" and "of 16 examples" in result["notes"][0]
