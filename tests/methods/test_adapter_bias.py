"""AdapterBias: published counts, the block by hand, what starts where, a shared map, refusals."""

import pytest
import torch
from torch import Tensor

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput, Refused
from graft.methods.adapter_bias import AdapterBias
from methods import blocks
from methods.sizes import counts

PUBLISHED = [
    ("bert-base", AdapterBias(), 46_092),
    ("bert-large", AdapterBias(), 122_904),
    ("bert-base", AdapterBias(share_alpha=True), 12 * 768 + 3072 + 1),
    ("hubert-base", AdapterBias("out"), 18_444),  # SUPERB's 0.02M
]
DOWN = {
    "bert": lambda model, i: model.bert.encoder.layer[i].output.dense,
    "gpt2": lambda model, i: model.transformer.h[i].mlp.c_proj,
    "llama": lambda model, i: model.model.layers[i].mlp.down_proj,
    "t5": lambda model, i: [*model.encoder.block, *model.decoder.block][i].layer[-1].DenseReluDense.wo,
}


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: AdapterBias, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("reads", ["mid", "out"])
@pytest.mark.parametrize("name", blocks.REWRITE)
def test_block_by_hand(name: str, reads: str, shared: bool) -> None:
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "adapter_bias", input=reads, share_alpha=shared)
    mids: dict[int, Tensor] = {}
    for i in range(sum(not key.startswith("shared") for key in adapter.parts)):
        DOWN[name](base, i).register_forward_pre_hook(lambda m, a, i=i: mids.update({i: a[0]}))

    def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
        part = adapter.parts[blocks.key(name, index, "down" if reads == "mid" else "ffn")]
        g = adapter.parts["shared.0"] if shared else part.amount
        u = mids[index] if reads == "mid" else out
        return out + (u @ g.w[0] + g.b)[..., None] * part.v

    blocks.REWRITE[name](base, ffn=change)
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


def test_starts_as_the_base_and_moves_only_the_shift_first() -> None:
    model = zoo.tiny("bert")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, AdapterBias())
    out = zoo.forward(model, batch)
    assert torch.equal(out, base)
    out.square().mean().backward()
    for part in adapter.parts.values():
        assert part.v.grad.any() and not part.amount.w.grad.any() and not part.amount.b.grad.any()
        assert part.amount.w.detach().abs().max() <= 48**-0.5 and part.amount.b.detach().abs() <= 48**-0.5


def test_refusals() -> None:
    with pytest.raises(Refused, match=r"fused experts.*Choose input='out'"):
        attach(zoo.tiny("mixtral"), AdapterBias())
    attach(zoo.tiny("mixtral"), AdapterBias("out"))
    with pytest.raises(BadInput, match="AdapterBias: input must be 'mid' or 'out'"):
        AdapterBias("middle")
