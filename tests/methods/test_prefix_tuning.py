"""Prefix tuning: published counts, the gated form, T5's bias, positions, the network and what it leaves, refusals."""

import math

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach, detach
from graft.errors import BadInput, NotApplied
from graft.methods.prefix_tuning import PrefixTuning
from methods.sizes import counts

PUBLISHED = [
    ("roberta-base", PrefixTuning(30, reparameterize=True), 9_872_384),  # AdapterHub's default
    ("roberta-base", PrefixTuning(30), 552_960),
    ("roberta-base", PrefixTuning(20), 960_770 - 592_130),  # 0.96M with the head
    ("roberta-large", PrefixTuning(20), 2_034_690 - 1_051_650),  # 2.03M with the head
    ("roberta-large", PrefixTuning(128), 6_291_456),  # P-tuning v2
    ("gpt2-medium", PrefixTuning(5), 245_760),
    ("gpt2", PrefixTuning(20, reparameterize=True, hidden=768), 14_780_160),  # Hugging Face PEFT's default network
    ("wav2vec2-large", PrefixTuning(30), 1_739_787 - 265_227),  # SURE
    ("llama2-70b", PrefixTuning(10), 2 * 10 * 80 * 8 * 128),  # by key heads, not by width
    ("bart-large", PrefixTuning(200, variant="hf"), 4_915_200),  # Hugging Face PEFT: the decoder alone
    ("bart-large", PrefixTuning(200), 3 * 4_915_200),  # encoder, decoder and cross-attention
]


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: PrefixTuning, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


def test_stored_bytes_are_those_of_the_flat_form() -> None:
    flat, network = counts("gpt2", PrefixTuning(20)), counts("gpt2", PrefixTuning(20, reparameterize=True))
    assert network.stored == flat.stored == 4 * flat.trainable


def heads(x: Tensor, number: int) -> Tensor:
    """(batch, n, number·width) → (batch, number, n, width)."""
    return x.unflatten(-1, (number, -1)).transpose(1, 2)


def gated(q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
    """(1−λ)·Attn(Q, K, V) + λ·Attn(Q, P_k, P_v) with λ = Σexp(qP_kᵀ) / (Σexp(qP_kᵀ) + Σexp(qKᵀ))."""
    root = math.sqrt(q.shape[-1])
    real = (q @ k.transpose(-1, -2) / root).masked_fill(~seen, -math.inf)
    prefix = q @ keys.transpose(-1, -2) / root
    gate = prefix.exp().sum(-1, keepdim=True) / (prefix.exp().sum(-1, keepdim=True) + real.exp().sum(-1, keepdim=True))
    return (1 - gate) * (real.softmax(-1) @ v) + gate * (prefix.softmax(-1) @ values)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ["gpt2", "bert"])
def test_gated_form_at_one_attention(name: str, attention: str) -> None:
    """What the first attention gives out, against the gated form computed from q, k, v by hand."""
    model = zoo.tiny(name)
    model.set_attn_implementation(attention)
    adapter = cases.grafted(model, "prefix_tuning")
    part = adapter.parts["decoder.0.attention" if name == "gpt2" else "encoder.0.attention"]
    keys, values = part.keys.detach().transpose(0, 1)[None], part.values.detach().transpose(0, 1)[None]
    inner = model.transformer.h[0].attn if name == "gpt2" else model.bert.encoder.layer[0].attention.self
    caught: dict[str, Tensor] = {}
    before = inner.register_forward_pre_hook(
        lambda m, a, k: caught.update(x=a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    out = model.transformer.h[0].attn.c_proj if name == "gpt2" else model.bert.encoder.layer[0].attention.output.dense
    after = out.register_forward_pre_hook(lambda m, a: caught.update(y=a[0]))
    batch = zoo.batch(model)
    with torch.no_grad():
        model(**batch)
        x, mask = caught["x"], batch["attention_mask"].bool()
        seen = mask[:, None, None, :].expand(-1, 1, 9, -1)
        if name == "gpt2":
            seen = seen & torch.ones(9, 9, dtype=torch.bool).tril()
            q, k, v = (heads(part, 4) for part in inner.c_attn(x).chunk(3, -1))
        else:
            q, k, v = (heads(linear(x), 4) for linear in (inner.query, inner.key, inner.value))
        expected = gated(q, k, v, keys, values, seen).transpose(1, 2).flatten(2)
    before.remove(), after.remove()
    torch.testing.assert_close(caught["y"][mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_keys_carry_no_rotation_and_tokens_start_behind_them() -> None:
    """Llama, against its own cache filled with the prefixes and its own positions n, n+1, …"""
    from transformers import DynamicCache

    base, tuned = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "prefix_tuning")
    batch = zoo.batch(base)
    cache = DynamicCache()
    for index in range(2):
        part = adapter.parts[f"decoder.{index}.attention"]
        cache.update(*(t.detach().transpose(0, 1)[None].expand(2, -1, -1, -1) for t in (part.keys, part.values)), index)
    mask = torch.cat((torch.ones(2, 3, dtype=torch.long), batch["attention_mask"]), 1)
    theirs = base(input_ids=batch["input_ids"], attention_mask=mask, past_key_values=cache).logits
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(zoo.forward(tuned, batch)[real], theirs[real], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_t5_bias_of_prefix_keys_and_of_real_ones(stack: str) -> None:
    """Prefix keys stand at −n…−1 in their real buckets; real keys keep their distances."""
    model = zoo.tiny("t5")
    adapter = cases.grafted(model, "prefix_tuning", tokens=4, sites=f"{stack} self: attention")
    attention = model.get_submodule(stack).block[0].layer[0].SelfAttention
    part = adapter.parts[f"{stack}.0.attention"]
    caught: dict[str, Tensor] = {}
    attention.register_forward_pre_hook(
        lambda m, a, k: caught.update(x=a[0] if a else k["hidden_states"]), with_kwargs=True
    )
    attention.o.register_forward_pre_hook(lambda m, a: caught.update(y=a[0]))
    batch = zoo.batch(model)
    with torch.no_grad():
        model(**batch)
        x = caught["x"]
        q, k, v = (heads(linear(x), 4) for linear in (attention.q, attention.k, attention.v))
        keys, values = (t.detach().transpose(0, 1)[None].expand(2, -1, -1, -1) for t in (part.keys, part.values))
        k, v, length = torch.cat((keys, k), 2), torch.cat((values, v), 2), x.shape[1]
        distance = torch.arange(-4, length)[None] - torch.arange(length)[:, None]
        bucket = attention._relative_position_bucket(distance, stack == "encoder", 8, 16)
        scores = q @ k.transpose(-1, -2) + attention.relative_attention_bias(bucket).permute(2, 0, 1)
        mask = batch["attention_mask"].bool() if stack == "encoder" else torch.ones(2, length, dtype=torch.bool)
        seen = mask[:, None, None, :].expand(-1, 1, length, -1)
        if stack == "decoder":
            seen = seen & torch.ones(length, length, dtype=torch.bool).tril()
        seen = torch.cat((torch.ones(2, 1, length, 4, dtype=torch.bool), seen), -1)
        expected = (scores.masked_fill(~seen, -math.inf).softmax(-1) @ v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(caught["y"][mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_three_sets_of_an_encoder_decoder_each_matter() -> None:
    model = zoo.tiny("bart")
    adapter = cases.grafted(model, "prefix_tuning")
    assert adapter.coverage == {"attention": 6}
    batch = zoo.batch(model)
    full = zoo.forward(model, batch)
    for key in ("encoder.0.attention", "decoder.0.attention", "decoder.0.cross.attention"):
        saved = adapter.parts[key].values.detach().clone()
        adapter.parts[key].values.data += 1
        assert (zoo.forward(model, batch) - full).abs().max() > 1e-3, key
        adapter.parts[key].values.data = saved


def test_even_zero_prefixes_are_not_the_base() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    for parameter in attach(model, PrefixTuning(3)).parameters():
        parameter.data.zero_()
    assert (zoo.forward(model, batch) - base).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["llama", "t5", "bert"])
def test_network_by_hand_and_what_it_leaves(name: str) -> None:
    """The flat form is tanh(E W₁ + b₁) W₂ + b₂ read layer by layer; it says the same and holds no network."""
    model = zoo.tiny(name)
    adapter = cases.grafted(model, "prefix_tuning", reparameterize=True)
    batch = zoo.batch(model)
    expected = zoo.forward(model, batch)
    deployed = adapter.deployed()
    assert {tensor for part in deployed.values() for tensor in part.state_dict()} == {"keys", "values"}
    network = adapter.parts["shared.0"]
    flat = torch.tanh(network.E @ network.W1.T + network.b1) @ network.W2.T + network.b2
    first = next(key for key in deployed if key.endswith("0.attention"))
    width = deployed[first].keys[0].numel()
    torch.testing.assert_close(deployed[first].keys.flatten(1), flat[:, :width])
    torch.testing.assert_close(deployed[first].values.flatten(1), flat[:, width : 2 * width])
    detach(model)
    served = attach(model, adapter.method.serving())
    assert set(served.parts) == set(deployed)
    for key, part in served.parts.items():
        part.load_state_dict(deployed[key].state_dict())
    torch.testing.assert_close(zoo.forward(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_peft_slots_reach_decoder_self_attention_alone() -> None:
    """Three layers, so that layer i reading slot 2i mod 3 is an order of its own: 0, 2, 1."""
    model = zoo.tiny("bart", encoder_layers=3, decoder_layers=3)
    adapter = cases.grafted(model, "prefix_tuning", variant="hf")
    slots = adapter.parts["shared.0"].P
    for layer, slot in enumerate((0, 2, 1)):
        keys, values, _ = adapter.parts[f"decoder.{layer}.attention"].keys_values(None, None)
        assert torch.equal(keys, slots[slot, 0]) and torch.equal(values, slots[slot, 1])
    assert adapter.coverage == {"attention": 3}


def test_starts_small() -> None:
    model: nn.Module = zoo.tiny("llama")
    for parameter in attach(model, PrefixTuning(60)).parameters():
        assert abs(float(parameter.detach().std()) / 0.02 - 1) < 0.05


def test_refusals() -> None:
    with pytest.raises(BadInput, match="PrefixTuning: tokens must be at least 1"):
        PrefixTuning(0)
    with pytest.raises(BadInput, match="PrefixTuning: hidden must be at least 1"):
        PrefixTuning(hidden=0)
    with pytest.raises(BadInput, match="Leave reparameterize off"):
        PrefixTuning(variant="hf", reparameterize=True)
    with pytest.raises(NotApplied, match="attention interface"):
        attach(zoo.tiny("deberta_v2"), PrefixTuning(3))
