"""torch.compile: one graph, and the same outputs and gradients as eager, for every verb."""

import pytest
import torch
from torch._dynamo.utils import counters

import cases
import zoo

FAST = [("llama", "lora"), ("llama", "ia3"), ("bert", "prefix_tuning")]
SLOW = [(model, name) for model in cases.FEW for name in cases.NAMES
        if (model, name) not in FAST and cases.suits(name, model)]  # fmt: skip


@pytest.mark.parametrize(("model_name", "name"), cases.some([*FAST, *SLOW]))
def test_compiled_equals_eager_without_a_graph_break(model_name: str, name: str) -> None:
    torch._dynamo.reset()
    counters.clear()
    model = zoo.tiny(model_name, use_cache=False).train()
    adapter, batch = cases.grafted(model, name), zoo.batch(model)
    torch.manual_seed(0)  # some methods draw numbers in training: the same ones, eager and compiled
    eager = zoo.forward(model, batch)
    expected = torch.autograd.grad(eager.square().mean(), adapter.parameters(), allow_unused=True)
    torch.manual_seed(0)
    compiled = zoo.forward(torch.compile(model, backend="aot_eager"), batch)
    gradients = torch.autograd.grad(compiled.square().mean(), adapter.parameters(), allow_unused=True)
    assert torch.allclose(compiled, eager, atol=1e-5)
    for ours, theirs in zip(gradients, expected, strict=True):
        assert (ours is None) == (theirs is None)
        assert ours is None or torch.allclose(ours, theirs, atol=1e-5)
    assert sum(counters["graph_break"].values()) == 0
