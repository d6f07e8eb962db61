"""AdapterDrop: the published count, who has parts and who rests, where graphs end, hosts as text, what is stored."""

from collections import Counter

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach, detach, merge
from graft.checkpoint import load, save
from graft.errors import BadInput, Refused
from graft.memory import kept_bytes
from graft.method import Method
from graft.methods.adapter_drop import AdapterDrop
from graft.methods.adapter_fusion import AdapterFusion
from graft.methods.houlsby import Houlsby
from graft.methods.lora import LoRA
from graft.methods.mam import MAM
from graft.methods.pfeiffer import Pfeiffer
from graft.methods.prefix_tuning import PrefixTuning
from graft.spelling import read, spelled
from methods.moments import moment
from methods.sizes import TOTAL_T5, counts

PFEIFFER = Pfeiffer(4)


def test_count_is_the_published_one() -> None:
    """0.494 % of T5-base in Compacter's table: adapters in blocks 5 to 11 of both stacks, and all 62 norms."""
    host = Houlsby(24, train_layernorm=False, sites="self: attention; ffn")
    found = counts("t5-base", AdapterDrop(host, drop=5)).trainable
    assert found + 62 * 768 == 1_101_984
    assert round(100 * (found + 62 * 768) / TOTAL_T5, 3) == 0.494
    assert counts("roberta-base", AdapterDrop(drop=9)).trainable == 894_528 // 4


def blocks(model: nn.Module) -> list[nn.Module]:
    return list(model.bert.encoder.layer if hasattr(model, "bert") else model.model.layers)


def graphs(model: nn.Module) -> list[bool]:
    """Whether what leaves each block has a graph, in one forward in training mode."""
    found: list[bool] = []
    outs = [b.register_forward_hook(lambda m, a, y: found.append(_first(y).requires_grad)) for b in blocks(model)]
    zoo.forward(model.train(), zoo.batch(model))
    for handle in outs:
        handle.remove()
    return found


def _first(output: Tensor | tuple) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]


@pytest.mark.parametrize("name", ["bert", "llama"])
@pytest.mark.parametrize("host", [PFEIFFER, Houlsby(4), LoRA(2), PrefixTuning(3), MAM(3, bottleneck=4, hidden=6)])
def test_nothing_below_the_first_adapter_has_a_graph(name: str, host: Method) -> None:
    """Nor does it keep any of its activations: half of the blocks, about half of the bytes."""
    model = zoo.tiny(name, num_hidden_layers=6)
    attach(model, host)
    whole = kept_bytes(lambda: zoo.forward(model.train(), zoo.batch(model)))
    assert graphs(model) == [True] * 6
    detach(model)
    adapter = attach(model, AdapterDrop(host, drop=3))
    assert graphs(model) == [False] * 3 + [True] * 3
    half = kept_bytes(lambda: zoo.forward(model, zoo.batch(model)))
    head = 2 * 9 * (32 + 3 * zoo.VOCABULARY) * 4  # what the head keeps is no block's
    assert half - head < 0.56 * whole
    assert {placed.site.layer for placed in adapter.placed if placed.site} - {None} == {3, 4, 5}


def test_robust_draws_how_many_blocks_go_without_and_evaluates_all() -> None:
    model = zoo.tiny("bert", num_hidden_layers=4)
    plain = zoo.tiny("bert", num_hidden_layers=4)
    parts = cases.grafted(model, "pfeiffer").parts
    state = [part.state_dict() for part in parts.values()]
    expected = zoo.forward(model, zoo.batch(model))
    detach(model)
    adapter = attach(model, AdapterDrop(PFEIFFER, drop=3, robust=True))
    for part, own in zip(adapter.parts.values(), state, strict=True):
        part.load_state_dict(own)
    drawn: Counter[int] = Counter()
    for step in range(40):
        adapter.method.during("forward", moment(step), list(adapter.parts.values()))
        found = graphs(model)
        drawn[without := found.index(True)] += 1
        if drawn[without] == 1 and without:  # as if they had never been there
            special = attach(plain, AdapterDrop(PFEIFFER, drop=without))
            for part, own in zip(special.parts.values(), state[without:], strict=True):
                part.load_state_dict(own)
            torch.testing.assert_close(zoo.forward(model, zoo.batch(model)), zoo.forward(plain, zoo.batch(plain)))
            detach(plain)
        torch.testing.assert_close(zoo.forward(model.eval(), zoo.batch(model)), expected)
    assert set(drawn) == {0, 1, 2, 3} and min(drawn.values()) > 3


def test_robust_is_stored_as_its_host_or_without_the_blocks_that_are_served_without(tmp_path) -> None:  # type: ignore[no-untyped-def]
    model = zoo.tiny("llama")
    for served, name, method in ((0, "whole", PFEIFFER), (1, "upper", AdapterDrop(PFEIFFER, drop=1))):
        adapter = attach(model, AdapterDrop(PFEIFFER, drop=1, robust=True, served=served))
        cases.move(adapter)
        expected = zoo.forward(model, zoo.batch(model))
        adapter.method.during("forward", moment(0), list(adapter.parts.values()))
        save(model, "default", tmp_path / name)
        detach(model)
        assert load(model, tmp_path / name).method == method
        torch.testing.assert_close(zoo.forward(model, zoo.batch(model)), expected)
        detach(model)


def test_what_rests_is_not_merged() -> None:
    model = zoo.tiny("llama")
    cases.move(attach(model, AdapterDrop(LoRA(2), drop=1, robust=True, served=1)))
    before = [block.self_attn.q_proj.weight.clone() for block in blocks(model)]
    expected = zoo.forward(model, zoo.batch(model))
    merge(model)
    torch.testing.assert_close(zoo.forward(model, zoo.batch(model)), expected, atol=1e-5, rtol=1e-5)
    same = [torch.equal(a, b.self_attn.q_proj.weight) for a, b in zip(before, blocks(model), strict=True)]
    assert same == [True, False]


@pytest.mark.parametrize(
    "method", [LoRA(), LoRA(4, rslora=True), Houlsby(4) + LoRA(2, sites="q v @ top 2"), AdapterDrop(LoRA(4), drop=2)]
)
def test_hosts_are_text_and_back(method: Method) -> None:
    assert read(spelled(method)) == method
    assert AdapterDrop(method) == AdapterDrop(spelled(method)) and AdapterDrop(method).hosted == method
    assert AdapterDrop(method).learning_rate == method.learning_rate


def test_refusals(tmp_path) -> None:  # type: ignore[no-untyped-def]
    for drop in (0, -1):
        with pytest.raises(BadInput, match="drop must be at least 1"):
            AdapterDrop(drop=drop)
    with pytest.raises(BadInput, match=r"served must be at least 0.* and needs robust"):
        AdapterDrop(served=1)
    with pytest.raises(BadInput, match='no method "pfeifer"; the nearest is "pfeiffer"'):
        AdapterDrop("pfeifer")
    with pytest.raises(BadInput, match="pfeiffer has no option width"):
        AdapterDrop("pfeiffer(width=3)")
    (tmp_path / "own.py").write_text("raise SystemExit")
    for text in (str(tmp_path / "own.py"), "__import__('os')", "pfeiffer(open('x'))", "pfeiffer(bottleneck=1+x)", ""):
        with pytest.raises(BadInput, match="is no method"):
            AdapterDrop(text)
    with pytest.raises(Refused, match="trains the base's own tensors"):
        AdapterDrop("top_layers")
    for host in ("prompt_tuning", "ladder_side"):
        with pytest.raises(Refused, match="outside of the blocks"):
            attach(zoo.tiny("llama"), AdapterDrop(host, drop=1))
    with pytest.raises(BadInput, match=r"nothing is left in the encoder.* Choose drop=1 or less"):
        attach(zoo.tiny("bert"), AdapterDrop(drop=2))
    with pytest.raises(Refused, match="one module that runs as several blocks"):
        attach(zoo.tiny("albert"), AdapterDrop(drop=1))


def test_a_fusion_in_the_upper_blocks_alone() -> None:
    """Each of its parts is that of the fusion in all blocks, and below them nothing is left."""
    model = zoo.tiny("bert")
    for seed, name in enumerate(("a", "b")):
        cases.move(attach(model, Pfeiffer(4), name), seed=seed)
    whole = attach(model, AdapterFusion(("a", "b")), "whole")
    upper = attach(model, AdapterDrop(AdapterFusion(("a", "b")), drop=1), "upper")
    assert upper.coverage == {"ffn": 1} and upper.parts.keys() == {"encoder.1.ffn"}
    for name, tensor in upper.parts["encoder.1.ffn"].state_dict().items():
        if name.startswith("adapter_"):
            assert torch.equal(tensor, whole.parts["encoder.1.ffn"].state_dict()[name])


def test_hosts_that_reach_across_blocks_are_refused() -> None:
    with pytest.raises(Refused, match="tells tasks apart"):
        AdapterDrop("hyperformer")
    with pytest.raises(Refused, match="as one chain, which none may leave"):
        attach(zoo.tiny("bert"), AdapterDrop("meft(bottleneck=2)", drop=1, robust=True))


@torch.no_grad()
def test_a_prefix_above_the_block_that_has_the_position_bias() -> None:
    """T5 makes the bias of positions once, in block 0, and blocks above have keys in front that it knows nothing of."""
    model = zoo.tiny("t5")
    adapter = attach(model, AdapterDrop(PrefixTuning(3, reparameterize=False, sites="decoder self: attention"), drop=1))
    cases.move(adapter)
    batch = zoo.batch(model)
    o = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}
    given = {key: value for key, value in batch.items() if not key.startswith("decoder")}
    assert torch.equal(model.generate(**given, **o, use_cache=True), model.generate(**given, **o, use_cache=False))
    before = zoo.forward(zoo.tiny("t5"), batch)
    assert not torch.allclose(zoo.forward(model, batch), before, atol=1e-3)
