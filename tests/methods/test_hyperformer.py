"""HyperFormer++: the published count, what its network writes by hand, rows of several tasks, and the frozen form."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import cases
import zoo
from graft.attach import attach, detach, grafted, probe, use
from graft.attach.recompute import checkpoint_activations
from graft.checkpoint import load, save
from graft.composition import Frozen
from graft.errors import BadInput, Refused
from graft.method import Sum
from graft.methods.houlsby import Houlsby
from graft.methods.hyperformer import HyperFormer
from methods.sizes import TOTAL_T5, counts

TASKS = ("nli", "qa", "sum")
GLUE = ("cola", "sst2", "mrpc", "qqp", "stsb", "mnli", "qnli", "rte")


def knowing(model: nn.Module, **settings: object) -> HyperFormer:
    """A trained-looking adapter of three tasks on `model`, and its method."""
    adapter = attach(model, cases.method("hyperformer", tasks=TASKS, **settings))
    cases.move(adapter)
    return adapter.method  # type: ignore[return-value]


def test_the_count_is_the_published_one() -> None:
    plain = counts("t5-base", HyperFormer(GLUE, train_layernorm=False)).trainable
    whole = counts("t5-base", HyperFormer(GLUE)).trainable
    assert plain == 2 * 2_581_464 + 8 * 64 == 5_163_440
    assert whole == plain + 47_616
    assert round(100 * whole / TOTAL_T5, 3) == 2.338  # 1.02 times the base, 0.29 % for each task


def test_what_the_network_writes_by_hand() -> None:
    model = zoo.tiny("t5")
    adapter = attach(model, cases.method("hyperformer", tasks=TASKS))
    cases.move(adapter)
    z, network = adapter.parts["shared.0"].z, adapter.parts["shared.2"]
    part = adapter.parts["decoder.1.ffn"]
    e = torch.cat((z[2], network.layers[1], network.places[1]))
    inner = torch.relu(e @ network.W_1.T + network.b_1) @ network.W_2.T + network.b_2
    code = (inner - inner.mean()) / (inner.var(correction=0) + 1e-6).sqrt() * network.gain + network.shift
    tensors = {n: (getattr(network, f"W_{n}") @ code + getattr(network, f"b_{n}")).view(s)
               for n, s in {"down": (4, 32), "down_bias": (4,), "up": (32, 4), "up_bias": (32,), "gain": (32,),
                            "shift": (32,)}.items()}  # fmt: skip
    y = torch.randn(2, 5, 32)
    added = F.gelu(y @ tensors["down"].T + tensors["down_bias"]) @ tensors["up"].T + tensors["up_bias"]
    added = (added - added.mean(-1, keepdim=True)) / (added.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    site = next(placed.site for placed in adapter.placed if placed.key == "decoder.1.ffn")
    with use(model, "default", "sum"):
        ours = part.after(y, y, site, grafted(model).now())
    torch.testing.assert_close(ours, y + added * tensors["gain"] + tensors["shift"], atol=1e-5, rtol=1e-5)
    assert {key for key in adapter.parts if "cross" in key and "norm" not in key} == set()


@pytest.mark.parametrize("name", ["llama", "t5"])
def test_rows_of_several_tasks_equal_each_alone(name: str) -> None:
    model = zoo.tiny(name)
    knowing(model)
    batch = zoo.batch(model)
    alone = {}
    for task in TASKS:
        with use(model, "default", task):
            alone[task] = zoo.forward(model, batch)
    assert not torch.allclose(alone["qa"], alone["sum"], atol=1e-3)
    with use(model, "default", ["sum", "qa"]):
        together = zoo.forward(model, batch)
    torch.testing.assert_close(together[0], alone["sum"][0], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(together[1], alone["qa"][1], atol=2e-5, rtol=2e-5)
    cases.move(attach(model, cases.method("lora"), "other"), seed=2)
    with use(model, "other"):
        other = zoo.forward(model, batch)
    with use(model, ["other", "default"], ["sum", "qa"]):
        mixed = zoo.forward(model, batch)
    torch.testing.assert_close(mixed[0], other[0], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(mixed[1], alone["qa"][1], atol=2e-5, rtol=2e-5)


def test_beams_of_rows_keep_their_task() -> None:
    model = zoo.tiny("llama")
    knowing(model)
    batch = zoo.batch(model, left_padding=True)
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "num_beams": 2, "do_sample": False, "pad_token_id": 0}
    with use(model, "default", ["sum", "qa"]):
        together = model.generate(**batch, **options)
    with use(model, "default", "qa"):
        alone = model.generate(**batch, **options)
    assert torch.equal(together[1], alone[1]) and not torch.equal(together[0], alone[0])


def test_gradients_of_rows_reach_their_own_task_through_checkpointing() -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, cases.method("hyperformer", tasks=TASKS))
    cases.move(adapter)
    batch, found = zoo.batch(model), []
    for checkpointed in (False, True):
        model.train()
        checkpoint_activations(model, checkpointed)
        with use(model, "default", ["sum", "qa"]):
            loss = zoo.forward(model, batch).square().mean()
        with use(model, "default", "nli"):
            zoo.forward(model, batch)
        found.append(torch.autograd.grad(loss, adapter.parts["shared.0"].z)[0])
    assert bool(found[0][1].any()) and bool(found[0][2].any()) and not bool(found[0][0].any())
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["bert", "t5"])
@pytest.mark.parametrize("norms", [True, False])
def test_frozen_it_is_an_ordinary_adapter_with_the_same_outputs(name: str, norms: bool, tmp_path: Path) -> None:
    model = zoo.tiny(name)
    knowing(model, train_layernorm=norms)
    batch = zoo.batch(model)
    with use(model, "default", "qa"):
        expected = zoo.forward(model, batch)
    method = attach(model, Frozen("default", task="qa"), "qa").method
    first, *rest = method.methods()
    assert isinstance(first, Houlsby) and len(rest) == norms and isinstance(method, Sum) == norms
    torch.testing.assert_close(zoo.forward(model, batch), expected, atol=1e-5, rtol=1e-5)
    save(model, "qa", tmp_path / "qa")
    detach(model, "qa")
    detach(model)
    load(model, tmp_path / "qa")
    torch.testing.assert_close(zoo.forward(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_a_sum_freezes_term_by_term_and_takes_its_head_along() -> None:
    model = zoo.tiny("bert", "classification")
    method = cases.method("lora") + cases.method("hyperformer", tasks=TASKS)
    cases.move(attach(model, method))
    batch = zoo.batch(model)
    with use(model, "default", "nli"):
        expected = zoo.forward(model, batch)
    attach(model, Frozen("default", task="nli"), "nli")
    torch.testing.assert_close(zoo.forward(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_saved_it_knows_its_tasks(tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    knowing(model)
    batch = zoo.batch(model)
    with use(model, "default", ["qa", "nli"]):
        expected = zoo.forward(model, batch)
    save(model, "default", tmp_path / "all")
    detach(model)
    assert load(model, tmp_path / "all").tasks == TASKS
    with use(model, "default", ["qa", "nli"]):
        torch.testing.assert_close(zoo.forward(model, batch), expected)


def test_refusals_say_what_to_write() -> None:
    model = zoo.tiny("llama")
    attach(model, cases.method("hyperformer", tasks=TASKS))
    batch = zoo.batch(model)
    with pytest.raises(BadInput, match=r"nli, qa, sum, and none was named.*tasks='nli'"):
        zoo.forward(model, batch)
    with pytest.raises(BadInput, match="not 'ner'"), use(model, "default", ["qa", "ner"]):
        zoo.forward(model, batch)
    with pytest.raises(BadInput, match="3 tasks for a batch of 2"), use(model, "default", ["qa", "qa", "sum"]):
        zoo.forward(model, batch)
    with pytest.raises(BadInput, match="an empty list of tasks"), use(model, "default", []):
        pass
    with pytest.raises(BadInput, match="task='nli'"):
        attach(model, Frozen("default"), "frozen")
    with pytest.raises(BadInput, match="no adapter 'defualt'"):
        attach(model, Frozen("defualt", task="qa"), "frozen")
    attach(model, cases.method("lora"), "plain")
    with pytest.raises(Refused, match="ordinary adapter already"):
        attach(model, Frozen("plain"), "frozen")
    assert probe(model) > 0
    for wrong in ({"tasks": ("a", "a")}, {"tasks": "ab"}, {"width": 0}, {"bottleneck": 0}):
        with pytest.raises(BadInput):
            HyperFormer(**wrong)
