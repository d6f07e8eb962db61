"""LoRA+: the groups and the rates that a run makes of them, LoRA's counts, parts and stored form, refusals."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

import cases
import zoo
from graft import checkpoint
from graft.attach import Adapter, attach
from graft.errors import BadInput
from graft.method import find
from graft.methods.lora_plus import LoRAPlus
from graft.training.optimization import groups
from graft.training.options import TrainingOptions
from methods.sizes import counts


@pytest.mark.parametrize(("model", "rank"), [("roberta-base", 8), ("gpt2-medium", 4), ("llama-7b", 8)])
def test_counts_are_those_of_lora(model: str, rank: int) -> None:
    assert counts(model, LoRAPlus(rank=rank)) == counts(model, find("lora")(rank=rank))


def rates(adapter: Adapter, **options: float) -> dict[str, float]:
    """The learning rate of each tensor in a run."""
    found = {id(p): g["lr"] for g in groups(adapter, TrainingOptions(**options)) for p in g["params"]}
    assert len(found) == len(adapter.parameters())
    return {name: found[id(p)] for name, p in adapter.named_parameters()}


@pytest.mark.parametrize(("given", "eta"), [({}, 5e-4), ({"lr": 1e-3}, 1e-3)])
def test_B_learns_faster_and_the_head_does_not(given: dict[str, float], eta: float) -> None:
    adapter = attach(zoo.tiny("bert"), LoRAPlus(rank=2, ratio=5.0), head=True)
    found = rates(adapter, **given)
    assert {name.rpartition(".")[2] for name in found} >= {"A", "B", "weight"}
    for name, rate in found.items():
        assert rate == pytest.approx(5 * eta if name.endswith(".B") else eta), name


def test_beside_another_method_each_keeps_its_own_rates() -> None:
    found = rates(attach(zoo.tiny("llama"), LoRAPlus(rank=2) + find("prefix_tuning")(tokens=2)))
    assert {round(rate, 6) for rate in found.values()} == {5e-4, 16 * 5e-4, 6e-2}


def test_a_step_by_hand() -> None:
    """With plain gradient descent, B moves ratio·η times its gradient, and A η times its own."""
    model = zoo.tiny("llama")
    adapter = cases.grafted(model, "lora_plus", ratio=10.0)
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    before = {name: p.detach().clone() for name, p in adapter.named_parameters()}
    trained = groups(adapter, TrainingOptions(lr=0.01))
    torch.optim.SGD([{"params": g["params"], "lr": g["lr"]} for g in trained], lr=0.0).step()
    for name, p in adapter.named_parameters():
        rate = 0.1 if name.endswith(".B") else 0.01
        torch.testing.assert_close(p.detach(), before[name] - rate * gradient(p))


def gradient(parameter: Tensor) -> Tensor:
    assert parameter.grad is not None and parameter.grad.any()
    return parameter.grad


def test_is_the_function_of_lora_and_stored_as_one(tmp_path: Path) -> None:
    tuned, other = zoo.tiny("llama"), zoo.tiny("llama")
    cases.grafted(tuned, "lora_plus", "mine", rank=3, alpha=5.0, rslora=True)
    checkpoint.save(tuned, "mine", tmp_path / "adapter")
    assert checkpoint.load(other, tmp_path / "adapter").method == find("lora")(rank=3, alpha=5.0, rslora=True)
    batch = zoo.batch(tuned)
    assert torch.equal(zoo.forward(other, batch), zoo.forward(tuned, batch))


def test_impossible_settings() -> None:
    with pytest.raises(BadInput, match=r"LoRAPlus: ratio must be at least 1, .* got 0\.5"):
        LoRAPlus(ratio=0.5)
    for settings in ({"rank": 0}, {"alpha": 0.0}, {"dropout": 1.0}):
        with pytest.raises(BadInput, match=f"LoRAPlus: {next(iter(settings))} must"):
            LoRAPlus(**settings)
    with pytest.raises(BadInput, match="choose at most 16"):
        attach(zoo.tiny("llama"), LoRAPlus(rank=20))
