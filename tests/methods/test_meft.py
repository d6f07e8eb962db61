"""MEFT: its sizes and equations, that activations are had again bit for bit, and what that saves."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification

import cases
import zoo
from graft.attach import Adapter, attach, use
from graft.attach.around import Inner
from graft.attach.recompute import checkpoint_activations
from graft.errors import BadInput, Refused
from graft.memory import kept_bytes
from graft.method import Method
from graft.methods.meft import MEFT
from graft.methods.reft import ReFT

VARIANTS = pytest.mark.parametrize("variant", [1, 2, 3])


@VARIANTS
def test_size_on_bert_base(variant: int) -> None:
    with torch.device("meta"):
        model = BertForSequenceClassification(BertConfig())
    adapter = attach(model, MEFT(variant=variant, bottleneck=8))  # type: ignore[arg-type]
    assert adapter.counts.trainable == 313_536


def bottleneck(part: nn.Module, x: Tensor) -> Tensor:
    return F.linear(F.relu(F.linear(x, part.down, part.down_bias)), part.up, part.up_bias)


def llama_halves(model: nn.Module, i: int, x: Tensor, behind: Callable, beside: Callable) -> tuple[Callable, Callable]:
    layer, body = model.model.layers[i], model.model
    places = body.rotary_emb(x, torch.arange(x.shape[1])[None])

    def attention(x: Tensor) -> Tensor:
        o = layer.self_attn(layer.input_layernorm(x), position_embeddings=places, attention_mask=None)[0]
        return x + behind(o)

    def network(a: Tensor) -> Tensor:
        u = layer.post_attention_layernorm(a)
        return a + layer.mlp(u) + beside(u)

    return attention, network


def bert_halves(model: nn.Module, i: int, x: Tensor, behind: Callable, beside: Callable) -> tuple[Callable, Callable]:
    layer = model.bert.encoder.layer[i]

    def attention(x: Tensor) -> Tensor:
        o = layer.attention.output.dense(layer.attention.self(x)[0])
        return layer.attention.output.LayerNorm(x + behind(o))

    def network(a: Tensor) -> Tensor:
        return layer.output.LayerNorm(a + layer.output.dense(layer.intermediate(a)) + beside(a))

    return attention, network


def plainly(model: nn.Module, parts: dict[str, nn.Module], variant: int, ids: Tensor) -> Tensor:
    """The equations as they are written, on the modules of a model without graft."""
    post = hasattr(model, "bert")
    x1 = x2 = model.bert.embeddings(ids) if post else model.model.embed_tokens(ids)
    stack = "encoder" if post else "decoder"
    for i in range(2):
        own = {role: parts.get(f"{stack}.{i}.{role}") for role in ("layer", "attention", "ffn")}

        def behind(o: Tensor, own: dict = own) -> Tensor:
            return o + bottleneck(own["attention"], o) if variant == 3 else o

        def beside(u: Tensor, own: dict = own) -> Tensor:
            return bottleneck(own["ffn"], u)

        attention, network = (bert_halves if post else llama_halves)(model, i, x1, behind, beside)
        if variant == 1:
            y1 = 0.1 * x1 + network(attention(x2))
            y2 = x2 + bottleneck(own["layer"], y1)
        elif variant == 2:
            y1 = x1 + bottleneck(own["layer"], x2)
            y2 = 0.1 * x2 + network(attention(y1))
        else:
            y1 = 0.1 * x1 + attention(x2)
            y2 = 0.1 * x2 + network(y1)
        x1, x2 = (y1, y2) if variant == 3 else (y2, y1)
    x = (x1 + x2) / 2
    return model.cls(x) if post else model.lm_head(model.model.norm(x))


@VARIANTS
@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize(("exact", "bound"), [(False, 1e-11), (True, 1e-6)])
def test_is_the_equations_and_their_gradients(name: str, variant: int, exact: bool, bound: float) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        model, plain = zoo.tiny(name).double(), zoo.tiny(name).double()
        adapter = attach(model, MEFT(variant=variant, bottleneck=4, exact=exact))  # type: ignore[arg-type]
        cases.move(adapter)
        ids = zoo.batch(model)["input_ids"][:1]
        ours = model(input_ids=ids).logits
        theirs = plainly(plain, dict(adapter.parts), variant, ids)
        both = [torch.autograd.grad(out.square().mean(), adapter.parameters()) for out in (ours, theirs)]
    finally:
        torch.set_default_dtype(torch.float32)
    assert ours.grad_fn is not None and torch.allclose(ours, theirs, atol=bound, rtol=bound)
    assert all(torch.allclose(a, b, atol=bound, rtol=bound) for a, b in zip(*both, strict=True))


def passed(model: nn.Module) -> list[Tensor]:
    """What enters feed-forward networks from here on, in a backward too."""
    seen: list[Tensor] = []
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach().clone()))
    return seen


@VARIANTS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_activations_of_a_deep_model_are_had_again_bit_for_bit(variant: int, dtype: torch.dtype) -> None:
    model = zoo.tiny("llama", dropout=0.1, num_hidden_layers=10)
    adapter = attach(model, MEFT(variant=variant, bottleneck=4))  # type: ignore[arg-type]
    cases.move(adapter)
    model.to(dtype).train()
    seen = passed(model)
    out = zoo.forward(model, zoo.batch(model))
    forward = list(seen)
    del seen[:]
    out.float().square().mean().backward()
    assert len(forward) == len(seen) == 10
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(seen), strict=True))


@VARIANTS
def test_as_published_a_deep_backward_is_refused_and_a_short_one_is_not(variant: int) -> None:
    for layers, fits in ((1, True), (10, False)):
        model = zoo.tiny("llama", num_hidden_layers=layers)
        cases.move(attach(model, MEFT(variant=variant, bottleneck=4, exact=False)))  # type: ignore[arg-type]
        loss = zoo.forward(model, zoo.batch(model)).square().mean()
        if fits:
            loss.backward()
        else:
            with pytest.raises(Refused, match=r"could not be had again.*exact=True"):
                loss.backward()


def test_what_a_forward_keeps_does_not_grow_with_depth() -> None:
    """Nothing, or one or two streams to set right, of each block: less than a checkpointed model keeps of it."""
    entries = len(zoo.LENGTHS) * max(zoo.LENGTHS) * zoo.ROWS["hidden_size"]

    def for_each_block(method: Method, checkpointed: bool = False) -> float:
        kept = []
        for layers in (3, 6):
            model = zoo.tiny("llama", num_hidden_layers=layers)
            cases.move(attach(model, method))
            if checkpointed:
                checkpoint_activations(model.train(), True)
            batch = zoo.batch(model)
            kept.append(kept_bytes(lambda model=model, batch=batch: zoo.forward(model, batch)))
        return (kept[1] - kept[0]) / 3

    checkpointed = for_each_block(cases.method("lora"), checkpointed=True)
    for method, step in ((MEFT(exact=False), 0), (MEFT(), entries / 2), (MEFT(variant=3), entries)):
        assert for_each_block(method) == step < checkpointed / 2 < for_each_block(cases.method("lora")) / 8


def gradients(
    adapter: Adapter, reversible: bool, monkeypatch: pytest.MonkeyPatch, autocast: bool = False
) -> list[Tensor]:
    with monkeypatch.context() as patch:
        if not reversible:
            patch.setattr(Inner, "reversible", property(lambda inner: False))
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            loss = zoo.forward(adapter.model, zoo.batch(adapter.model)).float().square().mean()
        return list(torch.autograd.grad(loss, adapter.parameters()))


@VARIANTS
@pytest.mark.parametrize(
    ("name", "other", "autocast"), [("bart", None, False), ("t5", "lora", False), ("gpt2", None, True)]
)
def test_gradients_are_those_of_a_plain_forward(
    name: str, other: str | None, autocast: bool, variant: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With dropout, with another method inside the layers, from a decoder into its encoder, under autocast."""
    model, method = zoo.tiny(name, dropout=0.1), cases.method("meft", variant=variant)
    adapter = attach(model, method if other is None else method + cases.method(other))
    cases.move(adapter)
    model.train()
    bound = 2e-2 if autocast else 1e-5
    for ours, theirs in zip(*(gradients(adapter, on, monkeypatch, autocast) for on in (True, False)), strict=True):
        assert float((ours - theirs).norm()) <= bound * float(theirs.norm())


def test_a_graph_that_is_kept_goes_backward_twice() -> None:
    model = zoo.tiny("albert")
    adapter = cases.grafted(model, "meft")
    loss = zoo.forward(model, zoo.batch(model)).square().mean()
    first = torch.autograd.grad(loss, adapter.parameters(), retain_graph=True)
    assert all(torch.equal(a, b) for a, b in zip(first, torch.autograd.grad(loss, adapter.parameters()), strict=True))


def test_only_the_top_blocks() -> None:
    model = zoo.tiny("llama", num_hidden_layers=4)
    adapter = attach(model, MEFT(top=2, bottleneck=4))
    assert adapter.coverage == {"layer": 2, "ffn": 2}
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert all(p.grad is not None for p in adapter.parameters())


def test_a_cache_that_is_asked_for_is_filled_and_none_other() -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "meft")
    batch = zoo.batch(model)
    asked, plain = model(**batch, use_cache=True), model(**batch)
    assert asked.past_key_values.get_seq_length() == 9 and plain.past_key_values is None
    assert torch.allclose(asked.logits, plain.logits, atol=1e-5)


def test_what_cannot_be_is_refused() -> None:
    for wrong in (0.3, 0.0, 0.01, 2.0):
        with pytest.raises(BadInput, match="one over a whole number up to 16"):
            MEFT(share=wrong)
    model = zoo.tiny("llama")
    with pytest.raises(Refused, match="each want to run"):
        attach(model, cases.method("meft") + cases.method("meft"))
    attach(model, cases.method("meft"), "one")
    attach(model, cases.method("meft"), "two")
    with use(model, ["one", "two"]), pytest.raises(Refused, match="one and two each want to run"):
        zoo.forward(model, zoo.batch(model))
    model = zoo.tiny("llama").bfloat16()
    attach(model, MEFT(exact=False))
    with pytest.raises(Refused, match="Use exact=True"):
        zoo.forward(model, zoo.batch(model))
    for other in ("reft", "conv_adapter", "embedding_prompt"):
        with pytest.raises(Refused, match="one chain, whose states have to be had again"):
            attach(zoo.tiny("llama"), cases.method("meft") + cases.method(other))
    model = zoo.tiny("llama", num_hidden_layers=4)
    attach(model, MEFT(top=2, bottleneck=2) + ReFT(rank=2, sites="layer @ 0"))
    zoo.forward(model, zoo.batch(model)).sum().backward()


@pytest.mark.parametrize("name", ["gpt_neox", "falcon", "bloom"])
def test_layers_without_a_point_between_their_halves_are_refused(name: str) -> None:
    model = zoo.tiny(name)
    with pytest.raises(Refused, match=r"cannot run in halves.*runs layers whole"):
        attach(model, MEFT(variant=3, bottleneck=4))
        zoo.forward(model, zoo.batch(model))


def test_it_begins_near_the_base_s_own_blocks() -> None:
    """Adapters start N(0, 0.02²), as in the paper."""
    adapter = attach(zoo.tiny("bert", hidden_size=64, num_hidden_layers=4), MEFT(bottleneck=32))
    drawn = torch.cat([p.detach().flatten() for n, p in adapter.named_parameters() if n.endswith((".down", ".up"))])
    assert len(drawn) > 10_000 and abs(float(drawn.std()) - 0.02) < 5e-4 and abs(float(drawn.mean())) < 5e-4
