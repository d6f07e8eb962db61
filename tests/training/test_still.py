"""The base's dropout in training: on where gradients go through it, off below, off everywhere where so asked."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import graft
import zoo
from graft.attach import attach
from graft.attach.recompute import checkpoint_activations
from graft.training.loop import fit
from graft.training.options import TrainingOptions
from graft.training.resume import copy_of
from graft.training.still import still, undropped
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


@pytest.mark.parametrize("on", ["bert", "gpt2", "opt", "bart", "t5"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_without_dropout_a_batch_has_one_loss_whoever_drops(on: str, checkpointing: bool) -> None:
    model = zoo.tiny(on, dropout=0.5)
    batch = zoo.batch(model)
    adapter = attach(model, graft.LoRA(rank=2))
    checkpoint_activations(model, checkpointing)
    numbers = {module: dict(vars(module)) for module in model.modules()}

    def passes(quiet: list[nn.Module]) -> set[float]:
        model.train()
        for module in quiet:
            module.training = False
        with torch.no_grad():
            return {float(zoo.forward(model, batch).sum()) for _ in range(3)}

    assert len(passes([])) == 3
    with undropped(model):
        assert len(passes(still(adapter, dropout=False))) == 1
    assert all(vars(module)[name] == value for module, kept in numbers.items() for name, value in kept.items()
               if isinstance(value, float))  # fmt: skip


def test_frozen_layers_give_the_same_where_embeddings_and_output_share_a_dropout() -> None:
    model = zoo.tiny("t5", dropout=0.5)
    adapter = attach(model, graft.LoRA(rank=2, sites="encoder: q v @ 1"))
    given: list[torch.Tensor] = []
    model.encoder.block[0].register_forward_hook(lambda _, args, output: given.append(output[0].detach()))
    model.train()
    for module in still(adapter, dropout=True):
        module.training = False
    zoo.forward(model, zoo.batch(model)), zoo.forward(model, zoo.batch(model))
    assert torch.equal(*given)


@pytest.mark.parametrize("method", [graft.TinyAttention(sites="encoder: attention @ top 1"),
                                    graft.ConvAdapter(sites="encoder: attention @ top 1")])  # fmt: skip
def test_activations_made_again_above_frozen_layers_are_those_of_their_forward(study: Make, method: Any) -> None:
    def run(checkpointing: bool) -> dict[str, torch.Tensor]:
        made = study("t5", "answers", still=True)
        torch.manual_seed(0)
        adapter = attach(made.model, method)
        features = made.task.features(made.train[:8], made.tokenizer, train=True)
        told = TrainingOptions(steps=2, batch=4, lr=1e-2, accumulate=1, checkpointing=checkpointing)
        fit(made.model, made.tokenizer, made.task, features, [], adapter, told)
        return copy_of(adapter)

    kept, again = run(False), run(True)
    for name, tensor in kept.items():
        torch.testing.assert_close(again[name], tensor)
