"""UniPELT: the published count, attention and adapter by hand, gates that are open or shut, what is stored."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach, detach
from graft.errors import BadInput
from graft.method import Part
from graft.methods.lora import LoRA
from graft.methods.pfeiffer import Pfeiffer
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.unipelt import UniPELT
from methods import blocks
from methods.sizes import counts


def test_count_is_the_published_one() -> None:
    assert counts("roberta-base", UniPELT()).trainable == 11_083_376  # AdapterHub, unipelt


def gate(part: Part, u: Tensor, sees: Tensor) -> Tensor:
    """(batch, n): the mean of σ(u w + b) over the tokens that each one sees, token by token."""
    each = torch.sigmoid(u @ part.w + part.b)
    rows = [[each[b, sees[b, t]].mean() for t in range(u.shape[1])] for b in range(len(u))]
    return torch.tensor(rows)


def by_hand(model: nn.Module, parts: dict[str, Part], name: str, sees: Tensor, mask: Tensor) -> None:
    """Rewrite every block of a plain model; `sees` (batch, n, n) is for gates, `mask` for attention."""
    prefix = parts["shared.0"]
    out = (torch.tanh(prefix.E @ prefix.W1.T + prefix.b1) @ prefix.W2.T + prefix.b2).unflatten(-1, (2, 2, 4, 8))

    def updated(index: int, role: str, y: Tensor, x: Tensor) -> Tensor:
        part = parts[blocks.key(name, index, role)]
        return y + gate(part, x, sees)[..., None] * (x @ part.A.T @ part.B.T) * 5 / 3

    def attended(index: int, x: Tensor, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        g = gate(parts[blocks.key(name, index, "attention")], x, sees)
        q, v = updated(index, "q", q, x), updated(index, "v", v, x)
        q, k, v = (t.unflatten(-1, (4, 8)).transpose(1, 2) for t in (q, k, v))
        keys, values = out[:, index].permute(1, 2, 0, 3)
        mixed = torch.empty_like(q)
        for t in range(x.shape[1]):  # every query has prefixes of its own
            own = g[:, t, None, None, None]
            K, V = torch.cat((own * keys, k), 2), torch.cat((own * values, v), 2)
            scores = (q[:, :, t, None] @ K.transpose(-1, -2)) / math.sqrt(8)
            seen = F.pad(mask[:, None, t, None], (3, 0), value=True)
            mixed[:, :, t] = (scores.masked_fill(~seen, -math.inf).softmax(-1) @ V)[:, :, 0]
        return mixed.transpose(1, 2).flatten(2)

    def adapted(index: int, o: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
        part, z = parts[blocks.key(name, index, "ffn")], o + residual
        z = model.bert.encoder.layer[index].output.LayerNorm(z) if name == "bert" else z
        bottleneck = F.relu(z @ part.down.T + part.down_bias) @ part.up.T + part.up_bias
        return o + gate(part, z, sees)[..., None] * bottleneck

    blocks.REWRITE[name](model, ffn=adapted)
    for index in range(2):
        if name == "bert":
            own = model.bert.encoder.layer[index].attention.self
            own.forward = lambda x, *_, i=index, s=own, **__: (attended(i, x, s.query(x), s.key(x), s.value(x)), None)
        else:
            own = model.transformer.h[index].attn
            own.forward = lambda x, *_, i=index, s=own, **__: (
                s.c_proj(attended(i, x, *s.c_attn(x).chunk(3, -1))), None,
            )  # fmt: skip


@torch.no_grad()
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_blocks_by_hand(name: str) -> None:
    """In an encoder one gate for a row, of its real tokens; in a decoder one for a token, of those up to it."""
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "unipelt", alpha=5.0)
    batch = zoo.batch(base)
    real = batch["attention_mask"].bool()
    seen = real[:, None].expand(-1, 9, -1)
    if name == "gpt2":
        seen = (seen & torch.ones(9, 9).tril().bool()) | torch.eye(9).bool()
    by_hand(base, adapter.parts, name, seen, seen)
    behind = torch.arange(3, 12)[None].expand(2, -1)  # the prefix takes the first positions
    expected = zoo.forward(base, {**batch, "position_ids": behind})
    torch.testing.assert_close(zoo.forward(tuned, batch)[real], expected[real], atol=3e-5, rtol=3e-5)


@torch.no_grad()
def test_open_gates_are_the_plain_sum_also_beside_other_prefixes() -> None:
    model, other = zoo.tiny("llama"), zoo.tiny("llama")
    own = UniPELT(tokens=3, reparameterize=False, rank=2, alpha=4, bottleneck=4)
    adapter = attach(model, PrefixTuning(2) + own)
    plain = attach(other, PrefixTuning(2) + PrefixTuning(3) + LoRA(2, 4) + Pfeiffer(4))
    cases.move(adapter)
    for key, part in adapter.parts.items():
        if key.startswith("1."):
            part.w.zero_(), part.b.fill_(100.0)
        term = {"attention": "1", "q": "2", "v": "2", "ffn": "3"}[key.rpartition(".")[2]] if key[0] == "1" else "0"
        theirs = plain.parts[f"{term}{key[1:]}"]
        for name, tensor in theirs.named_parameters():
            tensor.copy_(part.get_parameter(name))
    batch = zoo.batch(model)
    torch.testing.assert_close(zoo.forward(model, batch), zoo.forward(other, batch), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_shut_gates_leave_keys_and_values_of_zero() -> None:
    model, other = zoo.tiny("bert"), zoo.tiny("bert")
    for part in cases.grafted(model, "unipelt").parts.values():
        if hasattr(part, "w"):
            part.w.zero_(), part.b.fill_(-100.0)
    for parameter in attach(other, PrefixTuning(3)).parameters():
        parameter.zero_()
    batch = zoo.batch(model)
    torch.testing.assert_close(zoo.forward(model, batch), zoo.forward(other, batch), atol=1e-5, rtol=1e-5)


def test_gates_start_half_open() -> None:
    parts = attach(zoo.tiny("bert", hidden_size=256), UniPELT()).parts.values()
    gates = [part for part in parts if hasattr(part, "w")]
    assert len(gates) == 2 * 4
    assert all(abs(float(part.w.detach().std()) / 0.02 - 1) < 0.2 and not part.b.any() for part in gates)


def test_stored_form_has_no_network_and_the_same_gates() -> None:
    model = zoo.tiny("t5")
    adapter = cases.grafted(model, "unipelt")
    batch = zoo.batch(model)
    expected, stored = zoo.forward(model, batch), adapter.deployed()
    assert not any("W1" in name for part in stored.values() for name in part.state_dict())
    detach(model)
    served = attach(model, adapter.method.serving())
    assert set(served.parts) == set(stored)
    for key, part in served.parts.items():
        part.load_state_dict(stored[key].state_dict())
    torch.testing.assert_close(zoo.forward(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_refusals() -> None:
    for name in ("tokens", "hidden", "rank", "bottleneck"):
        with pytest.raises(BadInput, match=f"UniPELT: {name} must be at least 1"):
            UniPELT(**{name: 0})
    with pytest.raises(BadInput, match=r"alpha must not be 0.* Try 8"):
        UniPELT(alpha=0)


@torch.no_grad()
def test_gates_on_what_the_encoder_made_are_of_all_its_real_tokens() -> None:
    """Rows of the two stacks have lengths and padding of their own; more padding in front of the decoder is nothing."""
    model = zoo.tiny("t5")
    cases.grafted(model, "unipelt")
    batch = zoo.batch(model)
    ids, real = batch["input_ids"], batch["attention_mask"]
    given = {"decoder_input_ids": torch.randint(5, 96, (2, 4)), "decoder_attention_mask": torch.ones(2, 4).long()}
    plain = model(input_ids=ids, attention_mask=real, **given).logits
    wider = model(input_ids=F.pad(ids, (0, 3)), attention_mask=F.pad(real, (0, 3)), **given).logits
    torch.testing.assert_close(wider, plain, atol=1e-5, rtol=1e-5)
    row = int(real[1].sum())
    alone = model(input_ids=ids[1:, :row], decoder_input_ids=given["decoder_input_ids"][1:]).logits
    torch.testing.assert_close(alone, plain[1:], atol=1e-5, rtol=1e-5)
