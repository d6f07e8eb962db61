"""PlugIn: an identity is direct loading, the equation by hand, no gradient, stored whole, refusals."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.anatomy import examine
from graft.attach import attach, detach, merge
from graft.checkpoint import load, read, save
from graft.errors import BadInput, GraftError, Refused
from graft.method import Method
from graft.methods.dora import DoRA
from graft.methods.houlsby import Houlsby
from graft.methods.ia3 import IA3
from graft.methods.lora import LoRA
from graft.methods.parallel_adapter import ParallelAdapter
from graft.methods.pfeiffer import Pfeiffer
from graft.methods.plug_in import PlugIn
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.top_layers import TopLayers
from graft.methods.vera import VeRA
from graft.transfer.bridge import Moments, fitted
from graft.transfer.plugging import plug

PLUGGED = (
    LoRA(3, sites="q v"), LoRA(3, sites="up down @ top 1"), Houlsby(4, std=0.2, train_layernorm=False), Pfeiffer(4),
    ParallelAdapter(4), ParallelAdapter(4, input="normed"), PrefixTuning(3), VeRA(rank=4),
)  # fmt: skip
WIDE = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "head_dim": 12}


def rows(number: int = 12, length: int = 20) -> list[list[int]]:
    draws = torch.Generator().manual_seed(3)
    return torch.randint(5, zoo.VOCABULARY, (number, length), generator=draws).tolist()


def trained(folder: Path, model: nn.Module, method: Method) -> Path:
    """An adapter on disk, as if it had been trained; the model is as before."""
    cases.move(attach(model, method, "small", head=False))
    save(model, "small", folder)
    detach(model, "small")
    return folder


@torch.no_grad()
@pytest.mark.parametrize("name", cases.some(["llama", "bert", "t5", "gpt2"]))
@pytest.mark.parametrize("method", PLUGGED, ids=str)
def test_equal_sizes_and_the_identity_are_direct_loading(name: str, method: Method, tmp_path: Path) -> None:
    model, batch = zoo.tiny(name), zoo.batch(zoo.tiny(name))
    folder = trained(tmp_path, model, method)
    plug(model, zoo.tiny(name), folder, rows(2), fit="identity")
    plugged = zoo.forward(model, batch)
    detach(model)
    load(model, folder)
    torch.testing.assert_close(plugged, zoo.forward(model, batch), atol=2e-6, rtol=2e-6)


@torch.no_grad()
@pytest.mark.parametrize(
    "method", [LoRA(3, sites="q v"), Houlsby(4, std=0.2, train_layernorm=False), Pfeiffer(4)], ids=str
)
def test_equation(method: Method, tmp_path: Path) -> None:
    """Δ(h) = small(h B_in) B_out by hand, in layer l what layer ⌊l·2/4⌋ of the small model has."""
    small, large, plain = zoo.tiny("llama"), zoo.tiny("llama", **WIDE), zoo.tiny("llama", **WIDE)
    folder = trained(tmp_path, small, method)
    parts = plug(large, small, folder, rows()).adapter.parts
    theirs = load(small, folder).parts

    def added(index: int, role: str, h: Tensor) -> Tensor:
        part, inner = parts[f"decoder.{index}.{role}"], theirs[f"decoder.{index // 2}.{role}"]
        if isinstance(method, LoRA):
            return h @ part.bridge_x @ inner.A.T @ inner.B.T * (16 / 3) @ part.bridge_out
        into, σ = (
            (part.bridge_normed, torch.relu) if isinstance(method, Pfeiffer) else (part.bridge_y, nn.functional.gelu)
        )
        return (σ(h @ into @ inner.down.T + inner.down_bias) @ inner.up.T + inner.up_bias) @ part.bridge_out

    for index, layer in enumerate(plain.model.layers):
        if isinstance(method, LoRA):
            for role in "qv":
                module = getattr(layer.self_attn, f"{role}_proj")
                module.register_forward_hook(lambda m, x, y, i=index, r=role: y + added(i, r, x[0]))
        elif isinstance(method, Houlsby):
            layer.self_attn.o_proj.register_forward_hook(lambda m, x, y, i=index: y + added(i, "attention", y))
            layer.mlp.register_forward_hook(lambda m, x, y, i=index: y + added(i, "ffn", y))
        else:
            stream: list[Tensor] = []
            layer.post_attention_layernorm.register_forward_pre_hook(lambda m, x, s=stream: s.append(x[0]))
            layer.mlp.register_forward_hook(lambda m, x, y, i=index, s=stream: y + added(i, "ffn", y + s.pop()))
    batch = zoo.batch(plain)
    torch.testing.assert_close(zoo.forward(large, batch), zoo.forward(plain, batch), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_prefixes_are_as_wide_as_the_large_model(tmp_path: Path) -> None:
    small, large = zoo.tiny("llama"), zoo.tiny("llama", **WIDE)
    folder = trained(tmp_path, small, PrefixTuning(3))
    part = plug(large, small, folder, rows()).adapter.parts["decoder.3.attention"]
    inner = load(small, folder).parts["decoder.1.attention"]
    site = next(site for site in examine(large).sites if site.name == "decoder.3.attention")
    keys, values, _ = part.keys_values(site, None)
    assert keys.shape == (3, 2, 12)
    torch.testing.assert_close(keys.flatten(1), inner.keys.flatten(1) @ part.bridge_k)
    torch.testing.assert_close(values.flatten(1), inner.values.flatten(1) @ part.bridge_v)


def test_no_gradient_of_either_model(tmp_path: Path) -> None:
    small, large = zoo.tiny("llama"), zoo.tiny("llama", **WIDE)
    folder, batch = trained(tmp_path, small, LoRA(3)), zoo.batch(large)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        adapter = plug(large, small, folder, rows()).adapter
        assert not zoo.forward(large, batch).requires_grad
    assert not saved and not adapter.parameters() and adapter.counts.trainable == 0
    assert all(parameter.requires_grad for parameter in small.parameters())
    detach(large)
    adapter = plug(large, small, folder, rows(), train_bridge=True).adapter
    zoo.forward(large, batch).square().mean().backward()
    moved = [name for name, parameter in adapter.named_parameters() if parameter.grad is not None]
    assert len(moved) == 4 * 2 * 2 and all("bridge" in name for name in moved)
    assert adapter.counts.trainable == 4 * (2 * 48 * 32 + 32 * 48 + 16 * 24)


def test_stored_alone_and_counted(tmp_path: Path) -> None:
    small, large = zoo.tiny("llama"), zoo.tiny("llama", **WIDE)
    folder, batch = trained(tmp_path / "small", small, LoRA(3)), zoo.batch(large)
    adapter = plug(large, small, folder, rows(), name="mine").adapter
    bridges, updates = 2 * 48 * 32 + 32 * 48 + 16 * 24, 3 * (32 + 32) + 3 * (32 + 16)
    assert adapter.counts.stored == 4 * 4 * (bridges + updates)
    expected = zoo.forward(large, batch)
    save(large, "mine", tmp_path / "plugged")
    detach(large, "mine")
    loaded = load(large, tmp_path / "plugged")
    assert torch.equal(zoo.forward(large, batch), expected) and not loaded.parameters()
    assert read(tmp_path / "plugged").method["host"] == "lora(rank=3)"
    with pytest.raises(BadInput, match="is not it"):
        load(small, tmp_path / "plugged")
    merge(large, "mine")
    torch.testing.assert_close(zoo.forward(large, batch), expected, atol=1e-4, rtol=1e-4)


def test_fitting_lowers_the_mismatch(tmp_path: Path) -> None:
    """Of a large model that has the small one's states, turned: the fit finds them where the identity does not."""
    small = zoo.tiny("llama")
    for name, parameter in small.named_parameters():
        if "norm" in name:
            nn.init.ones_(parameter)
    large = copy.deepcopy(small)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))[0]
    with torch.no_grad():  # x → x R throughout: norms of gain 1 keep it
        large.model.embed_tokens.weight.copy_(small.model.embed_tokens.weight @ turn)
        for layer in large.model.layers:
            for name in ("q_proj", "k_proj", "v_proj"):
                getattr(layer.self_attn, name).weight.copy_(getattr(layer.self_attn, name).weight @ turn)
            layer.self_attn.o_proj.weight.copy_(turn.T @ layer.self_attn.o_proj.weight)
            for name in ("gate_proj", "up_proj"):
                getattr(layer.mlp, name).weight.copy_(getattr(layer.mlp, name).weight @ turn)
            layer.mlp.down_proj.weight.copy_(turn.T @ layer.mlp.down_proj.weight)
    folder, batch = trained(tmp_path, small, Houlsby(4, std=0.2, train_layernorm=False)), zoo.batch(small)
    with torch.no_grad():
        load(small, folder)
        states = small.model(**batch).last_hidden_state
        detach(small, "small")
        for fit, bound in (("least_squares", 1e-2), ("orthogonal", 1e-2), ("identity", None)):
            found = plug(large, small, folder, rows(24), fit=fit)
            error = float((large.model(**batch).last_hidden_state - states @ turn).abs().max())
            assert (found.mismatch < 1e-4 < 0.5 < found.unfitted and error < bound) if bound else error > 0.1
            detach(large)


def test_bridges_against_a_library() -> None:
    from scipy.linalg import orthogonal_procrustes
    from sklearn.linear_model import Ridge

    draws = torch.Generator().manual_seed(0)
    X, Y = torch.randn(200, 6, generator=draws), torch.randn(200, 6, generator=draws)
    moments = Moments()
    moments.add(X[:90], Y[:90])
    moments.add(X[90:], Y[90:])
    R = torch.from_numpy(orthogonal_procrustes(X.numpy(), Y.numpy())[0])
    torch.testing.assert_close(fitted(moments, "orthogonal"), R, atol=1e-5, rtol=1e-5)
    B, λ = fitted(moments, "least_squares"), 0.1 * float(X.square().sum()) / 6
    ridge = Ridge(λ, fit_intercept=False, tol=1e-9).fit(X.numpy(), (Y - X @ R).numpy())  # shrunk to what R leaves
    torch.testing.assert_close(B, R + torch.from_numpy(ridge.coef_.T).float(), atol=1e-4, rtol=1e-4)
    assert moments.mismatch(B) == pytest.approx(float((X @ B - Y).square().sum() / Y.square().sum()), rel=1e-4)


@pytest.mark.parametrize("method", [DoRA(3), IA3(), Houlsby(4), LoRA(3) + PrefixTuning(3), TopLayers(1)], ids=str)
def test_what_cannot_be_plugged_is_refused(method: Method, tmp_path: Path) -> None:
    small, large = zoo.tiny("llama"), zoo.tiny("llama", **WIDE)
    folder = trained(tmp_path, small, method)
    with pytest.raises(Refused, match=r"cannot be plugged|has no bridge"):
        plug(large, small, folder, rows(2))
    assert all("graft" not in name for model in (small, large) for name, _ in model.named_modules())


def test_impossible_plugs(tmp_path: Path) -> None:
    small, large = zoo.tiny("llama"), zoo.tiny("llama", **WIDE)
    folder = trained(tmp_path, small, LoRA(3, sites="gate"))
    with pytest.raises(Refused, match=r"no common sites for decoder\.0\.gate and 1 more"):
        plug(zoo.tiny("gpt2"), small, folder, rows(2))
    with pytest.raises(BadInput, match="at least two"):
        plug(large, small, folder, rows(1))
    with pytest.raises(BadInput, match="graft plug ADAPTER"):
        attach(large, PlugIn())
    for plugs, match in ((("q",), "must be like"), (("decoder.0.q = decoder.0.q 999999 9",), "of no smaller model")):
        with pytest.raises(GraftError, match=match):
            attach(large, PlugIn("lora", plugs))
    with pytest.raises(BadInput, match="it would have"):
        attach(large, PlugIn("prefix_tuning(tokens=100_000_000)", train_bridge=True))
    for host in ("lora", "vera"):  # nothing of it would ever train
        with pytest.raises(BadInput, match="there is no adapter in it"):
            attach(large, PlugIn(host))
    for host, match in (("parallel", "it names no sites"), ("lora+ia3", "a sum of methods")):
        with pytest.raises(Refused, match=f"cannot be plugged: .*{match}"):
            PlugIn(host)
    plug(large, small, trained(tmp_path / "lora", small, LoRA(3)), rows(2), name="once")
    save(large, "once", tmp_path / "once")
    detach(large, "once")
    with pytest.raises(Refused, match="plugged in itself"):
        plug(large, large, tmp_path / "once", rows(2))
