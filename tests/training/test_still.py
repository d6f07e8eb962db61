"""The base's dropout in training: on where gradients go through it, off below, off everywhere where so asked."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import nn

import graft
from graft.attach import attach
from graft.training.loop import fit
from graft.training.options import TrainingOptions
from graft.training.tuning import Study

Make = Callable[..., Study]


@pytest.mark.parametrize(("method", "options", "on"), [
    (graft.LoRA(rank=2), {}, {"embeddings", "0", "1", "dropout"}),
    (graft.LoRA(rank=2, sites="q v @ top 1"), {}, {"1", "dropout"}),
    (graft.LadderSide(reduction=4), {}, {"dropout"}),
    (graft.WeightedSum(), {}, {"dropout"}),
    (graft.LoRA(rank=2), {"base_dropout": False}, set()),
    (graft.LoRA(rank=2), {"base_dropout": False, "checkpointing": True}, set()),
    (graft.LoRA(rank=2), {"checkpointing": True}, {"embeddings", "0", "1", "dropout"}),
])  # fmt: skip
def test_where_the_base_drops(study: Make, method: Any, options: dict[str, Any], on: set[str]) -> None:
    made = study("bert", "classes")
    adapter = attach(made.model, method)
    seen: dict[str, set[bool]] = {}
    for path, module in made.model.named_modules():
        if isinstance(module, nn.Dropout) and "graft" not in path:
            own = next((part for part in path.split(".") if part.isdigit() or part == "embeddings"), "dropout")
            module.register_forward_pre_hook(lambda m, _, own=own: seen.setdefault(own, set()).add(m.training))
    features = made.task.features(made.train[:8], made.tokenizer, train=True)
    told = TrainingOptions(steps=2, batch=4, lr=1e-3, accumulate=1, **options)
    fit(made.model, made.tokenizer, made.task, features, [], adapter, told)
    assert {own for own, modes in seen.items() if True in modes} == on
    assert seen.keys() == {"embeddings", "0", "1", "dropout"}


def test_an_adapter_keeps_its_own_dropout(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study("bert", "classes")
    adapter = attach(made.model, graft.LoRA(rank=2, dropout=0.5))
    modes: set[bool] = set()
    drop = graft.method.Part.drop
    monkeypatch.setattr(graft.method.Part, "drop", lambda self, x: (modes.add(self.training), drop(self, x))[1])
    features = made.task.features(made.train[:8], made.tokenizer, train=True)
    options = TrainingOptions(steps=2, batch=4, lr=1e-3, accumulate=1, base_dropout=False)
    fit(made.model, made.tokenizer, made.task, features, [], adapter, options)
    assert modes == {True}
