"""Pfeiffer's placement: published counts, the norm applied twice, the block by hand, starts, refusals."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.pfeiffer import Pfeiffer
from methods import blocks
from methods.sizes import counts

PUBLISHED = [
    ("roberta-base", Pfeiffer(48), 894_528, 592_130),  # AdapterHub, seq_bn
    ("roberta-base", Pfeiffer(384), 7_091_712, 592_130),
    ("roberta-large", Pfeiffer(64), 3_171_840, 1_051_650),
    ("roberta-large", Pfeiffer(512), 25_202_688, 1_051_650),
    ("hubert-base", Pfeiffer(32), 599_424, 0),  # SUPERB's "Houlsby", 0.60M
    ("wav2vec2-large", Pfeiffer(512), 25_467_915 - 265_227, 265_227),  # SURE, with its head 25,467,915
    ("t5-base", Pfeiffer(24), 951_360 - 62 * 768, 0),  # Compacter's table, where 62 norms train too
    ("codet5-base", Pfeiffer(30), 1_125_072, 0),
]


@pytest.mark.parametrize(("model", "method", "trainable", "head"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: Pfeiffer, trainable: int, head: int) -> None:
    found = counts(model, method)
    assert (found.trainable, found.head) == (trainable, head)


def norms(model: nn.Module) -> list[nn.Module | None]:
    """The norm behind each feed-forward network; only post-norm models have one."""
    layers = getattr(getattr(getattr(model, "bert", None), "encoder", None), "layer", None)
    return [layer.output.LayerNorm for layer in layers] if layers else [None] * 4


@pytest.mark.parametrize("model_name", blocks.REWRITE)
def test_block_by_hand(model_name: str) -> None:
    base, tuned = zoo.tiny(model_name), zoo.tiny(model_name)
    adapter = cases.grafted(tuned, "pfeiffer")

    def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
        part = adapter.parts[blocks.key(model_name, index, "ffn")]
        z = out + residual
        if norms(base)[index] is not None:
            z = norms(base)[index](z)  # and once more when the block ends
        return out + F.relu(z @ part.down.T + part.down_bias) @ part.up.T + part.up_bias

    blocks.REWRITE[model_name](base, ffn=change)
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


def test_starts() -> None:
    model = zoo.tiny("bert", hidden_size=256)
    for part in attach(model, Pfeiffer(64)).parts.values():
        assert not part.down_bias.any() and not part.up_bias.any()
        assert all(abs(float(weight.detach().std()) / 0.02 - 1) < 0.05 for weight in (part.down, part.up))


def test_zero_up_starts_as_the_base_and_moves_only_up_first() -> None:
    model = zoo.tiny("bert")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, Pfeiffer(16, init="zero_up"))
    out = zoo.forward(model, batch)
    torch.testing.assert_close(out, base)
    out.square().mean().backward()
    for part in adapter.parts.values():
        assert not part.down.grad.any() and part.up.grad.any()


def test_no_bottleneck_is_refused() -> None:
    with pytest.raises(BadInput, match="Pfeiffer: bottleneck must be at least 1"):
        Pfeiffer(0)
