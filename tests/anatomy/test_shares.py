"""Every projection a site gives is the one the model computes with: queries, keys and values, gates, experts."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import (
    AutoModel,
    CodeGenConfig,
    DebertaConfig,
    GPTBigCodeConfig,
    MptConfig,
    PersimmonConfig,
    PretrainedConfig,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

import zoo
from graft.anatomy import Site, examine

Recorded = dict[int, dict[str, Tensor]]

GPT = {"vocab_size": 32, "n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 16}
LAYER = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
# Architectures of the table of fused projections that the zoo does not have.
OTHERS: dict[str, Callable[[], PretrainedConfig]] = {
    "gpt_bigcode": lambda: GPTBigCodeConfig(**GPT),
    "gpt_bigcode_multi_head": lambda: GPTBigCodeConfig(**GPT, multi_query=False),
    "codegen": lambda: CodeGenConfig(**GPT, rotary_dim=4),
    "mpt": lambda: MptConfig(d_model=32, n_heads=4, n_layers=1, vocab_size=32, max_seq_len=16),
    "deberta": lambda: DebertaConfig(**LAYER),
    "persimmon": lambda: PersimmonConfig(**LAYER),
}


def other(name: str) -> nn.Module:
    return AutoModel.from_config(OTHERS[name]()).eval()


def projected(site: Site, x: Tensor) -> Tensor:
    """What the site's own weight and bias make of `x`."""
    return F.linear(x, site.weight, site.bias)


def close(seen: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(seen, wanted, atol=1e-5, rtol=1e-5)


def record_inputs(model: nn.Module, paths: set[str]) -> dict[str, Tensor]:
    """Where the last input of each module will stand after a forward."""
    seen: dict[str, Tensor] = {}
    for path in paths:

        def keep(_: nn.Module, inputs: tuple[Tensor, ...], path: str = path) -> None:
            seen[path] = inputs[0]

        model.get_submodule(path).register_forward_pre_hook(keep)
    return seen


def record_attention(monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """What attention modules hand to the attention function, each (rows, tokens, heads, width)."""
    calls: Recorded = defaultdict(dict)
    interface = type(ALL_ATTENTION_FUNCTIONS)
    find = interface.get_interface

    def get_interface(self: Any, *names: Any) -> Callable[..., Any]:
        plain = find(self, *names)

        def recorded(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> Any:
            states = {"q": query, "k": key, "v": value}
            calls[id(module)] = {role: state.transpose(1, 2) for role, state in states.items()}
            return plain(module, query, key, value, *args, **kwargs)

        return recorded

    monkeypatch.setattr(interface, "get_interface", get_interface)
    return calls


def record_split(monkeypatch: pytest.MonkeyPatch, model: nn.Module, method: str, heads_first: bool) -> Recorded:
    """The same, for models that split a fused projection with a method of their own."""
    calls: Recorded = defaultdict(dict)
    kind = next(type(module) for module in model.modules() if type(module).__name__.endswith("Attention"))
    plain = getattr(kind, method)

    def recorded(self: nn.Module, fused: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        split = plain(self, fused)
        calls[id(self)] = {
            role: state.transpose(1, 2) if heads_first else state for role, state in zip("qkv", split, strict=True)
        }
        return split

    monkeypatch.setattr(kind, method, recorded)
    return calls


def compare(model: nn.Module, inputs: dict[str, Tensor], calls: Recorded) -> int:
    """Compare what the sites' shares make with what the model used; the number of sites compared."""
    anatomy = examine(model)
    roles = [site for site in anatomy.sites if site.role in ("q", "k", "v")]
    seen = record_inputs(model, {site.path for site in roles})
    with torch.no_grad():
        model(**inputs)
    compared = 0
    for attention in (site for site in anatomy.sites if site.role == "attention"):
        module = attention.bind(model).module
        assert module is not None and attention.heads is not None
        normed = any("norm" in name for name in module._modules)
        for site in roles:
            same = (site.stack, site.layer, site.cross) == (attention.stack, attention.layer, attention.cross)
            if not same or (normed and site.role != "v"):
                continue
            used = calls[id(module)][site.role]
            made = projected(site.bind(model), seen[site.path]).unflatten(-1, (-1, attention.heads.width))
            assert made.shape[2] == (attention.heads.query if site.role == "q" else attention.heads.key)
            # Some models repeat key heads before the call.
            made = made.repeat_interleave(used.shape[2] // made.shape[2], 2)
            # Rotary positions leave position 0 alone; some models scale queries before the call (OPT, Whisper).
            many = used.shape[1] if site.role == "v" else 1
            used, made = used[:, :many], made[:, :many]
            scaled = site.role == "q" and not torch.allclose(used, made, atol=1e-5)
            close(used, made * (attention.heads.width**-0.5 if scaled else 1.0))
            compared += 1
    return compared


@pytest.mark.parametrize("name", [n for n in zoo.NAMES if n != "bloom" and not n.startswith(("falcon", "deberta"))])
def test_queries_keys_and_values_are_those_the_attention_gets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.tiny(name)
    assert compare(model, zoo.batch(model), record_attention(monkeypatch)) >= 2


@pytest.mark.parametrize("name", ["gpt_bigcode", "gpt_bigcode_multi_head", "persimmon"])
def test_other_fused_layouts_are_those_the_attention_gets(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = {"input_ids": torch.arange(6).view(1, 6)}
    assert compare(other(name), inputs, record_attention(monkeypatch)) == (1 if name == "persimmon" else 3)


@pytest.mark.parametrize(
    ("name", "method", "heads_first"),
    [
        ("bloom", "_reshape", True),
        ("falcon", "_split_heads", False),
        ("falcon_multi_query", "_split_heads", False),
        ("falcon_multi_head", "_split_heads", False),
    ],
)
def test_shares_are_those_of_the_models_own_split(
    name: str, method: str, heads_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = zoo.tiny(name)
    calls = record_split(monkeypatch, model, method, heads_first)
    assert compare(model, zoo.batch(model), calls) == 6


@pytest.mark.parametrize("name", ["deberta_v2", "codegen", "mpt", "deberta"])
def test_a_single_token_attends_to_its_own_value(name: str) -> None:
    model = zoo.tiny(name, "base") if name in zoo.NAMES else other(name)
    sites = [site.bind(model) for site in examine(model).sites if site.layer == 0]
    value, output = (next(site for site in sites if site.role == role) for role in ("v", "o"))
    seen = record_inputs(model, {value.path, output.path})
    with torch.no_grad():
        model(torch.tensor([[7]]))
    made = projected(value, seen[value.path])
    if name == "deberta":  # its bias stands beside the projection
        made = made + next(parameter for path, parameter in model.named_parameters() if path.endswith("v_bias"))
    close(seen[output.path], made)


@pytest.mark.parametrize("name", ["llama", "phi3", "modernbert", "flan_t5", "gemma2"])
def test_gate_and_up_make_what_enters_down(name: str) -> None:
    model = zoo.tiny(name)
    sites = {site.name: site.bind(model) for site in examine(model).sites if site.role in ("gate", "up", "down")}
    seen = record_inputs(model, {site.path for site in sites.values()})
    with torch.no_grad():
        model(**zoo.batch(model))
    others = {"llama": F.silu, "phi3": F.silu, "modernbert": F.gelu}
    activation = others.get(name, lambda x: F.gelu(x, approximate="tanh"))
    for down in (site for site in sites.values() if site.role == "down"):
        gate, up = (sites[f"{down.name.removesuffix('down')}{role}"] for role in ("gate", "up"))
        x = seen[up.path]
        close(seen[down.path], activation(projected(gate, x)) * projected(up, x))


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_one_expert_from_its_shares_is_the_expert(name: str) -> None:
    model = zoo.tiny(name)
    sites = {site.role: site.bind(model) for site in examine(model).sites if site.layer == 1}
    experts = sites["experts"].module
    x = torch.randn(5, 32)
    for expert in range(4):
        projections = {}
        for role in ("gate", "up", "down"):
            assert sites[role].batch == (4,) and sites[role].module is experts
            assert sites[role].weight.shape == (4, sites[role].outputs, sites[role].inputs)
            bias = sites[role].bias
            projections[role] = (sites[role].weight[expert], None if bias is None else bias[expert])
        gate, up = F.linear(x, *projections["gate"]), F.linear(x, *projections["up"])
        inner = F.silu(gate) * up
        if name == "gpt_oss":
            assert sites["gate"].bias is not None
            gate, up = gate.clamp(max=7.0), up.clamp(-7.0, 7.0)
            inner = gate * torch.sigmoid(1.702 * gate) * (up + 1)
        made = F.linear(inner, *projections["down"])
        with torch.no_grad():
            used = experts(x, torch.full((5, 1), expert), torch.ones(5, 1))
        close(used, made)


@pytest.mark.parametrize("name", ["gpt2", "gpt_neox", "falcon", "phi3", "modernbert", "gpt_oss", "llama"])
def test_a_share_put_back_changes_its_own_share_only(name: str) -> None:
    model = zoo.tiny(name)
    anatomy = examine(model)
    for site in anatomy.sites:
        if site.layer != 0 or site.role not in ("q", "k", "v", "gate", "up", "down"):
            continue
        site, others = site.bind(model), [s for s in anatomy.sites if s.path == site.path and s.name != site.name]
        stored = getattr(site.module, site.parameter)
        value = torch.randn(site.weight.shape)
        placed = site.place(site.parameter, stored, value)
        assert placed.shape == stored.shape
        assert torch.equal(site.share(site.parameter, placed), value)
        for neighbor in (s.bind(model) for s in others if s.parameter == site.parameter and s.rows):
            assert torch.equal(neighbor.share(site.parameter, placed), neighbor.weight)
