"""Side-tuning: its counts, the side network by hand, the blend, and that nothing back-propagates into the base."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import cases
import zoo
from graft.attach import Adapter, attach
from graft.errors import BadInput
from graft.method import Part
from graft.methods.lora import LoRA
from graft.methods.side_tuning import Side, SideTuning
from methods.sizes import counts


def test_counts() -> None:
    d, w = 768, 192
    ends = d + (d * w + w) + (w * d + d) + 1  # norm, in, out, α
    assert counts("roberta-base", SideTuning(layers=0)).trainable == ends
    block = 4 * w * w + 8 * w * w + 2 * w
    assert counts("roberta-base", SideTuning()).trainable == ends + 2 * block + 65 * 4 + w
    crossed = block + 4 * w * w + w
    encoder = d + (d * w + w) + block + 65 * 4 + w
    assert counts("t5-base", SideTuning(layers=1)).trainable == encoder + ends + crossed + 65 * 4 + w


def normed(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * gain


def side(part: Part, x: Tensor, sees: Tensor) -> Tensor:
    """S of x (batch, n, d), head by head; `sees` (batch, n, n)."""
    h = normed(x, part.gain) @ part.down.T + part.down_bias
    n, width = x.shape[1], h.shape[-1] // 4
    for i in range(part.layers):
        z, mixed = normed(h, part.norms[i, 0]), []
        W_q, W_k, W_v, W_o = part.attentions[i, 0]
        for head in range(4):
            rows = slice(head * width, (head + 1) * width)
            scores = (z @ W_q[rows].T) @ (z @ W_k[rows].T).transpose(1, 2) / math.sqrt(width)
            near = torch.tensor([[float(part.distances[32 + s - t, head]) for s in range(n)] for t in range(n)])
            mixed.append((scores + near).masked_fill(~sees, -math.inf).softmax(-1) @ (z @ W_v[rows].T))
        h = h + torch.cat(mixed, -1) @ W_o.T
        h = h + F.relu(normed(h, part.norms[i, 1]) @ part.wide[i].T) @ part.narrow[i].T
    h = normed(h, part.final) if part.layers else F.gelu(h)
    return h @ part.up.T + part.up_bias


def side_of(adapter: Adapter) -> Part:
    """The last stack's part."""
    return [part for part in adapter.parts.values() if isinstance(part, Side)][-1]


@torch.no_grad()
@pytest.mark.parametrize("layers", [0, 2])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_blend_by_hand(name: str, layers: int) -> None:
    plain, tuned = zoo.tiny(name, "base"), zoo.tiny(name, "base")
    part = side_of(cases.grafted(tuned, "side_tuning", layers=layers))
    batch = zoo.batch(plain)
    real, entered = batch["attention_mask"].bool(), []
    first = plain.encoder.layer[0] if name == "bert" else plain.h[0]
    first.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    base = zoo.forward(plain, batch)
    sees = real[:, None].expand(-1, 9, -1)
    if name == "gpt2":
        sees = (sees & torch.ones(9, 9).tril().bool()) | torch.eye(9).bool()
    alpha = 1 / (1 + math.exp(-float(part.a)))
    expected = alpha * base + (1 - alpha) * side(part, entered[0], sees)
    torch.testing.assert_close(zoo.forward(tuned, batch)[real], expected[real], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_starts_as_a_share_of_the_base_that_may_be_all_of_it() -> None:
    for alpha in (0.25, 0.999999):
        plain, tuned = zoo.tiny("t5", "base"), zoo.tiny("t5", "base")
        attach(tuned, SideTuning(alpha=alpha))
        batch = zoo.batch(plain)
        torch.testing.assert_close(zoo.forward(tuned, batch), alpha * zoo.forward(plain, batch), atol=1e-5, rtol=1e-5)


def test_no_gradient_enters_the_base_and_other_parts_get_theirs() -> None:
    model = zoo.tiny("t5")
    adapter = cases.grafted(model, "side_tuning")
    inside: list[Tensor] = []
    for layer in (*model.encoder.block, *model.decoder.block):
        layer.register_forward_hook(lambda module, args, output: inside.append(output[0]))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert len(inside) == 4 and not any(out.requires_grad for out in inside)
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())
    both = zoo.tiny("bert", "classification")
    adapter = attach(both, LoRA(sites="q") + SideTuning())
    zoo.forward(both, zoo.batch(both)).square().mean().backward()
    assert all(part.B.grad.any() for key, part in adapter.parts.items() if key.endswith("q"))


def test_an_encoder_decoder_s_side_sees_the_source() -> None:
    model = zoo.tiny("t5")
    adapter = cases.grafted(model, "side_tuning")
    side_of(adapter).a.data.fill_(-100.0)  # S alone
    batch = zoo.batch(model)
    other = {**batch, "input_ids": batch["input_ids"].roll(1, 1)}
    assert not torch.allclose(zoo.forward(model, batch), zoo.forward(model, other), atol=1e-3)


def test_refusals() -> None:
    with pytest.raises(BadInput, match="reduction 5 does not divide the width 32"):
        attach(zoo.tiny("llama"), SideTuning(reduction=5))
    with pytest.raises(BadInput, match="SideTuning: layers must be at least 0"):
        SideTuning(layers=-1)
    with pytest.raises(BadInput, match=r"alpha must be between 0 and 1, got 1.*Try 0\.5"):
        SideTuning(alpha=1.0)
