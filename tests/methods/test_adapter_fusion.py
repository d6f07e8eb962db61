"""AdapterFusion: the published count, the block by hand, frozen copies, the regularizer, stored whole, refusals."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import cases
import zoo
from graft.attach import Adapter, attach, detach, grafted, merge
from graft.checkpoint import load, save
from graft.errors import BadInput, Refused
from graft.method import Method
from graft.methods.adapter_fusion import AdapterFusion
from graft.methods.compacter import Compacter
from graft.methods.houlsby import Houlsby
from graft.methods.lora import LoRA
from graft.methods.mam import MAM
from graft.methods.parallel_adapter import ParallelAdapter
from graft.methods.pfeiffer import Pfeiffer
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.propetl import ProPETL
from graft.methods.sparse_adapter import SparseAdapter
from graft.methods.tiny_attention import TinyAttention
from methods import blocks
from methods.moments import moment
from methods.sizes import counts

NAMES = ("first", "second-1.0")


def fused(model: nn.Module, *methods: Method, **settings: float) -> Adapter:
    """A fusion of adapters by these methods, all of them as if they had been trained."""
    for i, (name, method) in enumerate(zip(NAMES, methods, strict=True)):
        cases.move(attach(model, method, name), seed=i)
    adapter = attach(model, AdapterFusion(NAMES, **settings), "fusion")
    cases.move(adapter, seed=7, by=0.1)
    return adapter


@pytest.mark.parametrize("number", [2, 5])
def test_count_is_the_published_one(number: int) -> None:
    assert counts("roberta-base", AdapterFusion(hosts=("pfeiffer",) * number)).trainable == 21_252_096


@torch.no_grad()
@pytest.mark.parametrize("name", blocks.REWRITE)
@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby", "parallel"])
def test_block_by_hand(name: str, placement: str) -> None:
    """Attention over what two adapters add, by a loop over them; what they read, they are asked about."""
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    houlsby = partial(Houlsby, train_layernorm=False, sites="self: attention; ffn")
    kind = {"pfeiffer": Pfeiffer, "houlsby": houlsby, "parallel": partial(ParallelAdapter, scale=1.0)}[placement]
    plain = [kind(r) for r in (4, 6)]
    adapter = fused(tuned, *plain)

    def after(role: str) -> blocks.Change:
        def change(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
            key = blocks.key(name, index, role)
            own, q, σ = adapter.parts[key], out, F.gelu if placement == "houlsby" else F.relu
            if placement == "parallel":
                q = residual
            if placement == "pfeiffer":
                q = out + residual
                q = base.bert.encoder.layer[index].output.LayerNorm(q) if name == "bert" else q
            parts = [grafted(tuned).adapters[other].parts[key] for other in NAMES]
            z = [σ(q @ part.down.T + part.down_bias) @ part.up.T + part.up_bias for part in parts]
            query = q @ own.Q.T + own.b_Q
            scores = torch.stack([(query * (each @ own.K.T + own.b_K)).sum(-1) for each in z]).softmax(0)
            return out + sum(score[..., None] * (each @ own.V.T) for score, each in zip(scores, z, strict=True))

        return change

    both = {"attention": after("attention")} if placement == "houlsby" else {}
    blocks.REWRITE[name](base, ffn=after("ffn"), **both)
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=3e-5, rtol=3e-5)


def test_starts_as_an_even_choice() -> None:
    model = zoo.tiny("bert", hidden_size=64)
    for name in NAMES:
        attach(model, Pfeiffer(4), name)
    part = attach(model, AdapterFusion(NAMES), "fusion").parts["encoder.0.ffn"]
    torch.testing.assert_close(part.V.detach(), torch.eye(64) + 1e-6 * (1 - torch.eye(64)))
    for weight, bias in ((part.Q, part.b_Q), (part.K, part.b_K)):
        assert abs(float(weight.detach().std()) / 0.02 - 1) < 0.1 and not bias.any()


def test_what_is_fused_neither_trains_nor_is_needed_any_more() -> None:
    model = zoo.tiny("llama")
    adapter = fused(model, Pfeiffer(4), Pfeiffer(4))
    before = {n: t.clone() for n, t in adapter.named_parameters()}
    batch = zoo.batch(model)
    zoo.forward(model, batch).square().mean().backward()
    assert {n.rpartition(".")[2] for n, t in adapter.named_parameters() if t.grad is not None} == {
        "Q", "K", "V", "b_Q", "b_K",
    }  # fmt: skip
    assert not any(p.grad is not None for name in NAMES for p in grafted(model).adapters[name].parameters())
    torch.optim.SGD(adapter.parameters(), lr=0.1).step()
    assert all(torch.equal(t, before[n]) == ("adapter_" in n) for n, t in adapter.named_parameters())
    expected = zoo.forward(model, batch)
    for name in NAMES:
        detach(model, name)
    assert torch.equal(zoo.forward(model, batch), expected)
    with pytest.raises(Refused, match=r"Fused is no change of parameters.* Serve it attached"):
        merge(model, "fusion")


def test_regularizer_is_a_loss_of_v() -> None:
    adapter = fused(zoo.tiny("t5"), Pfeiffer(4), Pfeiffer(4), penalty=0.5)
    parts = list(adapter.parts.values())
    penalty = adapter.method.during("loss", moment(0), parts)
    off = [part.V - torch.eye(32) for part in parts]
    torch.testing.assert_close(penalty, 0.5 * sum(each.pow(2).sum() for each in off))
    penalty.backward()
    for part, each in zip(parts, off, strict=True):
        torch.testing.assert_close(part.V.grad, each.detach())
    assert adapter.method.during("forward", moment(0), parts) is None
    assert AdapterFusion(NAMES, penalty=0).during("loss", moment(0), parts) is None


@torch.no_grad()
def test_pruned_to_what_was_attended_to_most(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model, other = zoo.tiny("bert"), zoo.tiny("bert")
    adapter = fused(model, Pfeiffer(4), Pfeiffer(6), keep=1)
    parts = [part for key, part in adapter.parts.items() if key.endswith("ffn")]
    batch = zoo.batch(model)
    zoo.forward(model, batch)
    assert not any(part.attended.any() for part in parts)  # counted in training alone
    model.train()
    zoo.forward(model, batch)
    best = [int(part.attended.argmax()) for part in parts]
    for part in parts:
        torch.testing.assert_close(part.attended.sum(), batch["attention_mask"].sum().float())  # padding is not
    assert not adapter.method.settled(moment(9, 20)) and adapter.method.settled(moment(10, 20))
    for step in (moment(9, 20), moment(10, 20), moment(11, 20)):
        adapter.method.during("forward", step, list(adapter.parts.values()))
        assert [len(part.names) for part in parts] == [1 + (step < 10)] * len(parts)
    assert [part.names for part in parts] == [[f"adapter_{index}"] for index in best]
    model.eval()
    expected = zoo.forward(model, batch)
    for part in parts:  # whoever is alone has all the attention
        part.Q.normal_()
    torch.testing.assert_close(zoo.forward(model, batch), expected)
    save(model, "fusion", tmp_path)
    found = load(other, tmp_path)
    assert [part.names for key, part in found.parts.items() if key.endswith("ffn")] == [part.names for part in parts]
    torch.testing.assert_close(zoo.forward(other, batch), expected, atol=1e-6, rtol=1e-6)


SAVED = {
    "pfeiffer": (Pfeiffer(4), Pfeiffer(6)),
    "shared": (Compacter(4, sites="attention ffn", train_layernorm=False), Houlsby(4, train_layernorm=False)),
    "stored otherwise": (ProPETL(reduction=4), ProPETL(reduction=8, density=0.2)),
    "sizes of training": (SparseAdapter(4), SparseAdapter(8, sparsity=0.5, score="magnitude")),
    "low rank": (LoRA(2), LoRA(3)),
}


@pytest.mark.parametrize("name", SAVED)
def test_saved_with_what_it_fuses(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    model, other = zoo.tiny("t5"), zoo.tiny("t5")
    fused(model, *SAVED[name])
    expected = zoo.forward(model, zoo.batch(model))
    save(model, "fusion", tmp_path)
    load(other, tmp_path)
    torch.testing.assert_close(zoo.forward(other, zoo.batch(other)), expected, atol=1e-6, rtol=1e-6)


@torch.no_grad()
def test_in_a_sum_and_in_half_precision() -> None:
    model = zoo.tiny("llama")
    for i, name in enumerate(NAMES):
        cases.move(attach(model, Pfeiffer(4), name), seed=i)
    cases.move(attach(model, LoRA(2) + AdapterFusion(NAMES)))
    batch = zoo.batch(model)
    full = zoo.forward(model, batch)
    half = zoo.forward(model.bfloat16(), batch)
    assert half.dtype == torch.bfloat16 and float((half.float() - full).norm() / full.norm()) < 0.2


def test_adapters_with_a_cache_keep_apart() -> None:
    model = zoo.tiny("llama")
    fused(model, TinyAttention(2, 4), TinyAttention(2, 4))
    options = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}
    batch = zoo.batch(model, left_padding=True)
    plain = model.generate(**batch, **options, use_cache=False)
    assert torch.equal(model.generate(**batch, **options, use_cache=True), plain)


@pytest.mark.parametrize(
    ("methods", "names", "error", "match"),
    [
        ([], (), BadInput, "needs at least two adapters"),
        ([], ("a", "b"), BadInput, r"no adapter a, b on this model; attached are: none\. Load it first"),
        ([Pfeiffer(4)], ("first", "b"), BadInput, r"no adapter b on this model; attached are: first"),
        ([Pfeiffer(4), Houlsby(4, train_layernorm=False)], NAMES, BadInput, r"different places: only 'second-1.0' at"),
        ([Pfeiffer(4), Pfeiffer(4, sites="ffn @ 0")], NAMES, BadInput, r"only 'first' at decoder\.1\.ffn, one of 1"),
        ([Houlsby(4), Houlsby(4)], NAMES, Refused, r"'first' .*norm\.input_layernorm it does something else"),
        ([PrefixTuning(2), PrefixTuning(2)], NAMES, Refused, r"attention it does something else"),
        ([MAM(2, bottleneck=2), Pfeiffer(4)], NAMES, Refused, "cannot be one of them"),
        ([LoRA(2) + Pfeiffer(4), Pfeiffer(4)], NAMES, Refused, "it is a sum of methods"),
    ],
)
def test_what_cannot_be_fused_is_refused_before_anything_is_made(
    methods: list[Method], names: tuple[str, ...], error: type[Exception], match: str
) -> None:
    model = zoo.tiny("llama")
    for name, method in zip(NAMES, methods, strict=False):
        attach(model, method, name)
    drawn = torch.get_rng_state()
    with pytest.raises(error, match=match):
        attach(model, AdapterFusion(names), "fusion")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert "fusion" not in (grafted(model).adapters if methods else {})


def test_impossible_settings() -> None:
    for names, rule in ((("a",), "must name several"), (("a", "a"), "must differ"), ("ab", "must be a tuple of text")):
        with pytest.raises(BadInput, match=f"adapters {rule}"):
            AdapterFusion(names)
    with pytest.raises(BadInput, match="penalty must be at least 0"):
        AdapterFusion(penalty=-1)
    with pytest.raises(BadInput, match="keep must be at least 0 and below 2"):
        AdapterFusion(NAMES, keep=2)
