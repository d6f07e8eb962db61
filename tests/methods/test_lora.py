"""LoRA and rank-stabilized LoRA: published counts, the formula by hand, starts, refusals."""

import math

import pytest
import torch
from torch import nn

import cases
import zoo
from graft.attach import attach, detach, merge
from graft.errors import BadInput
from graft.method import Method
from graft.methods.dora import DoRA
from graft.methods.lora import LoRA
from methods.sizes import counts, sized

LLAMA_PAPER = "q k v up down"
PUBLISHED = [
    ("roberta-base", LoRA(rank=8), 294_912, 592_130),  # LoRA paper, 0.3M
    ("roberta-large", LoRA(rank=8), 786_432, 1_051_650),  # LoRA paper, 0.8M
    ("roberta-large", LoRA(rank=4), 393_216, 1_051_650),
    ("gpt2-medium", LoRA(rank=4), 393_216, 0),
    ("gpt2-large", LoRA(rank=4), 737_280, 0),
    ("gpt3", LoRA(rank=1), 4_718_592, 0),  # LoRA paper, 4.7M
    ("gpt3", LoRA(rank=8), 37_748_736, 0),  # LoRA paper, 37.7M
    ("deberta-xxl", LoRA(rank=16), 4_718_592, 0),  # LoRA paper, 4.7M
    ("deberta-v3-base", LoRA(rank=2, sites="all-linear"), 331_776, 0),  # AdaLoRA paper, 0.33M
    ("deberta-v3-base", LoRA(rank=8, sites="all-linear"), 1_327_104, 0),  # AdaLoRA paper, 1.33M
    ("llama-7b", LoRA(rank=8), 4_194_304, 0),
    ("llama-7b", LoRA(rank=32, sites=LLAMA_PAPER), 56_098_816, 0),  # DoRA paper, 0.83 %
    ("llama-7b", LoRA(rank=64, sites="all-linear"), 159_907_840, 0),  # QLoRA, 160M
    ("llama-13b", LoRA(rank=64, sites="all-linear"), 250_347_520, 0),  # QLoRA, 250M
    ("llama-33b", LoRA(rank=64, sites="all-linear"), 487_587_840, 0),
    ("llama-65b", LoRA(rank=64, sites="all-linear"), 799_539_200, 0),
    ("llama2-70b", LoRA(rank=64, sites="all-linear"), 828_375_040, 0),
    ("flan-t5-base", LoRA(rank=16), 1_769_472, 0),
]


@pytest.mark.parametrize(("model", "method", "trainable", "head"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: LoRA, trainable: int, head: int) -> None:
    found = counts(model, method)
    assert (found.trainable, found.head, found.rank) == (trainable, head, method.rank)


def test_changed_counts_every_entry_of_the_matrices() -> None:
    assert counts("roberta-base", LoRA()).changed == 24 * 768 * 768
    assert counts("gpt2", LoRA()).changed == 24 * 768 * 768


def test_stored_bytes_are_four_per_trained_number() -> None:
    assert counts("llama-7b", LoRA()).stored == 4 * 4_194_304


def test_flan_t5_reaches_every_attention_and_its_published_share() -> None:
    model = sized("flan-t5-base")
    adapter = attach(model, LoRA(rank=16))
    assert adapter.coverage == {"q": 36, "v": 36}
    assert adapter.counts.total == 222_903_552
    detach(model)
    tied = model.lm_head.weight
    try:
        # As published checkpoints have it: a head of its own.
        model.lm_head.weight = nn.Parameter(torch.empty_like(tied))
        found = counts("flan-t5-base", LoRA(rank=16))
        assert (found.total, found.total + found.trainable) == (247_577_856, 249_347_328)
        assert round(100 * found.trainable / (found.total + found.trainable), 2) == 0.71
    finally:
        model.lm_head.weight = tied


@pytest.mark.parametrize("rslora", [False, True])
def test_dense_update_by_hand(rslora: bool) -> None:
    base, tuned = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "lora", rank=4, alpha=6.0, rslora=rslora)
    scale = 6.0 / math.sqrt(4) if rslora else 6.0 / 4
    for index, layer in enumerate(base.model.layers):
        for role, linear in (("q", layer.self_attn.q_proj), ("v", layer.self_attn.v_proj)):
            part = adapter.parts[f"decoder.{index}.{role}"]
            linear.weight.data += scale * part.B.detach() @ part.A.detach()
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=1e-5, rtol=1e-5)


def test_fused_projection_by_hand() -> None:
    """GPT-2 keeps q, k and v in one transposed matrix, (in, 3·out): each has its own pair."""
    base, tuned = zoo.tiny("gpt2"), zoo.tiny("gpt2")
    adapter = cases.grafted(tuned, "lora", rank=4, alpha=4.0)
    for index, block in enumerate(base.transformer.h):
        for place, role in ((0, "q"), (2, "v")):
            part = adapter.parts[f"decoder.{index}.{role}"]
            columns = slice(32 * place, 32 * (place + 1))
            block.attn.c_attn.weight.data[:, columns] += (part.B.detach() @ part.A.detach()).T
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["llama", "gemma2", "bart"])
@pytest.mark.parametrize("method", ["lora", "dora", "ia3"])
def test_embedding_by_hand(name: str, method: str) -> None:
    """Also where an embedding multiplies what it looks up, and where encoder and decoder share one."""
    base, tuned = zoo.tiny(name, tie_word_embeddings=False), zoo.tiny(name, tie_word_embeddings=False)
    stack = "encoder" if name == "bart" else "decoder"
    adapter = cases.grafted(tuned, method, sites=f"{stack}: embed", **({} if method == "ia3" else {"alpha": 3.0}))
    assert adapter.counts.changed == 96 * 32
    (part,) = adapter.parts.values()
    table = (base.model.encoder if name == "bart" else base.model).embed_tokens
    table.weight = torch.nn.Parameter(table.weight.detach().clone())
    if method == "ia3":
        table.weight.data *= part.l.detach()
    else:
        table.weight.data += (part.B.detach() @ part.A.detach()).T
    if method == "dora":
        norms = table.weight.data.norm(dim=0)
        table.weight.data *= part.m.detach() / norms
    batch = zoo.batch(base)
    expected = zoo.forward(base, batch)
    torch.testing.assert_close(zoo.forward(tuned, batch), expected, atol=2e-5, rtol=2e-5)
    if name != "bart":
        merge(tuned)
        torch.testing.assert_close(zoo.forward(tuned, batch), expected, atol=2e-5, rtol=2e-5)


def test_starts() -> None:
    model = zoo.tiny("llama", hidden_size=256, num_attention_heads=4, head_dim=64)
    for part in attach(model, LoRA(rank=64)).parts.values():
        assert not part.B.any()
        bound = 1 / math.sqrt(256)
        assert part.A.abs().max() <= bound
        assert abs(float(part.A.detach().std()) / (bound / math.sqrt(3)) - 1) < 0.05


@pytest.mark.parametrize("method", [LoRA(rank=16, sites="embed"), DoRA(rank=16, sites="embed")], ids=str)
def test_starts_at_an_embedding_with_A_at_zero(method: Method) -> None:
    (part,) = attach(zoo.tiny("llama", hidden_size=256, head_dim=64), method).parts.values()
    assert not part.A.any() and abs(float(part.B.detach().std()) - 1) < 0.05


def test_only_b_has_a_gradient_at_the_first_step() -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, LoRA(rank=2))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    for part in adapter.parts.values():
        assert not part.A.grad.any() and part.B.grad.any()


def test_dropout_is_on_the_update_alone_and_off_in_eval() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    adapter = attach(model, LoRA(rank=2, dropout=0.5))
    model.train()
    torch.testing.assert_close(zoo.forward(model, batch), base)  # B = 0: there is no update to drop from
    cases.move(adapter)
    assert not torch.equal(zoo.forward(model, batch), zoo.forward(model, batch))
    model.eval()
    attached = zoo.forward(model, batch)
    merge(model)
    torch.testing.assert_close(zoo.forward(model, batch), attached, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("rank", [0, -1])
def test_impossible_rank(rank: int) -> None:
    with pytest.raises(BadInput, match=r"LoRA: rank must be at least 1, got .* Try 8"):
        LoRA(rank=rank)


@pytest.mark.parametrize("dropout", [1, 1.5, -0.1])
def test_impossible_dropout(dropout: float) -> None:
    with pytest.raises(BadInput, match=r"LoRA: dropout must be .* Try 0.1"):
        LoRA(dropout=dropout)


def test_rank_wider_than_the_matrix() -> None:
    model = zoo.tiny("llama")
    with pytest.raises(BadInput, match=r"rank 17 at decoder.0.v, a 16 by 32 matrix: choose at most 16"):
        attach(model, LoRA(rank=17))
    attach(model, LoRA(rank=16))
