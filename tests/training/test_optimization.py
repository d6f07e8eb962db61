"""The optimizers that a run can name: their groups, and that an interrupted run goes on with them."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import graft
from graft.errors import BadInput, Refused
from graft.training import TrainingOptions, fit
from graft.training.optimization import RATIO, groups, optimizer
from graft.training.resume import checkpoints, copy_of
from graft.training.tuning import Study, prepared

Make = Callable[..., Study]
HERE = importlib.util.find_spec("bitsandbytes") is not None
EIGHT_BITS = ["adamw8bit", "paged_adamw8bit"]


def train(study: Study, method: Any, name: Any, **more: Any) -> Any:
    choice = TrainingOptions(optimizer=name, steps=6, batch=8, lr=5e-4, checks=2)
    adapter = prepared(study.model, method, "small", study.tokenizer, 0)
    rows = study.task.features(study.train, study.tokenizer, train=True)
    return adapter, fit(study.model, study.tokenizer, study.task, rows, [], adapter, choice, **more)


@pytest.mark.parametrize("method", [graft.LoRA(rank=2), graft.DoRA(rank=2)])
def test_lora_plus_moves_every_b_faster(study: Make, method: Any) -> None:
    made = study("llama", "answers")
    adapter = prepared(made.model, method, "small", made.tokenizer, 0)
    names = {id(p): name.rpartition(".")[2] for name, p in adapter.named_parameters()}
    plain, faster = (
        {id(p): g["lr"] for g in groups(adapter, TrainingOptions(optimizer=name)) for p in g["params"]}
        for name in ("adamw", "lora+")
    )
    assert plain.keys() == faster.keys() == names.keys()
    for key, name in names.items():
        assert faster[key] == pytest.approx(plain[key] * (RATIO if name == "B" else 1))


def test_lora_plus_needs_a_b(study: Make, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"bitfit has none.*--optimizer adamw"):
        train(study("bert", "classes"), graft.BitFit(), "lora+", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_lora_plus_does_not_multiply_a_ratio_again(study: Make, tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"lora_plus has rates of its own.*--optimizer adamw"):
        train(study("llama", "answers"), graft.LoRAPlus(rank=2) + graft.IA3(), "lora+", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("given", [None, 2e-3])
def test_rates_keep_their_ratio(study: Make, given: float | None) -> None:
    """Of the terms of a sum to the smallest, which the option stands for; of a network of prefixes to its method's."""
    made = study("bert", "classes")
    prefixes = graft.PrefixTuning(tokens=2, reparameterize=True, hidden=8)
    adapter = prepared(made.model, graft.LoRA(rank=2) + prefixes, "small", made.tokenizer, 0)
    rates = {id(p): g["lr"] for g in groups(adapter, TrainingOptions(lr=given)) for p in g["params"]}
    names = {n.rpartition(".")[2]: rates[id(p)] for n, p in adapter.named_parameters()}
    unit = given or graft.LoRA.learning_rate
    ratio = graft.PrefixTuning.learning_rate / graft.LoRA.learning_rate
    assert names["A"] == names["B"] == names["weight"] == pytest.approx(unit)
    assert names["W1"] == names["W2"] == names["E"] == pytest.approx(0.01 * ratio * unit)


@pytest.mark.parametrize(("method", "drawn"), [
    (graft.LoRA(rank=2), {"A", "B"}), (graft.RandomMask(density=0.1), {"values"}), (graft.BitFit(), set()),
    (graft.SparseAdapter(4, score="magnitude"), {"values"}), (graft.IntrinsicSubspace(16), set()),
])  # fmt: skip
def test_decay_draws_what_is_added_to_matrices_towards_nothing(study: Make, method: Any, drawn: set[str]) -> None:
    made = study("bert", "classes")
    adapter = prepared(made.model, method, "small", made.tokenizer, 0)
    for p in adapter.parameters():
        p.data.normal_()
        p.grad = torch.zeros_like(p)
    before, base = copy_of(adapter), {n: t.clone() for n, t in made.model.state_dict().items() if ".graft." not in n}
    optimizer(adapter, TrainingOptions(lr=0.1, weight_decay=0.5)).step()
    for name, tensor in copy_of(adapter).items():
        head, leaf = "head" in name or "classifier" in name, name.rpartition(".")[2]
        decays = leaf == "weight" if head else leaf in drawn
        torch.testing.assert_close(tensor, before[name] * (0.95 if decays else 1), msg=name)
    assert all(torch.equal(tensor, base[n]) for n, tensor in made.model.state_dict().items() if n in base)


@pytest.mark.skipif(HERE, reason="bitsandbytes is installed")
@pytest.mark.parametrize("name", EIGHT_BITS)
def test_a_library_that_is_not_here_is_named(study: Make, tmp_path: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"bitsandbytes, which is not installed: .*graft\[quant\]"):
        train(study("bert", "classes"), graft.LoRA(rank=2), name, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not HERE, reason="bitsandbytes is not installed")
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize("name", EIGHT_BITS)
def test_moments_in_eight_bits_learn_and_resume(study: Make, tmp_path: Path, name: str) -> None:
    method = graft.Houlsby(bottleneck=256)  # smaller matrices keep moments of 32 bits
    whole, fitted = train(study("bert", "classes"), method, name, folder=tmp_path / "whole")
    curves = [fitted, train(study("bert", "classes"), method, "adamw")[1]]
    ours, theirs = ([line["loss"] for line in each.history] for each in curves)
    assert ours != theirs and ours == pytest.approx(theirs, rel=0.1)
    kept = (tmp_path / "whole" / "checkpoints").glob("*/optimizer.safetensors")
    assert any(b'"U8"' in path.read_bytes()[:100_000] for path in kept)
    train(study("bert", "classes"), method, name, folder=tmp_path / "half")
    middle = checkpoints(tmp_path / "half" / "checkpoints")[0]
    resumed, _ = train(study("bert", "classes"), method, name, folder=tmp_path / "half", resume_from=middle)
    left, right = copy_of(whole), copy_of(resumed)
    assert all(torch.equal(left[each], right[each]) for each in left)
