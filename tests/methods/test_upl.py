"""UPL: what its gate costs, the blend by hand, where its shares start, refusals."""

from typing import Any

import pytest
import torch

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput, Refused
from graft.methods.upl import UPL
from methods.sizes import counts


def test_counts() -> None:
    """A gate of width 64 is 0.018% of RoBERTa-large, as far apart as the paper's two forms are."""
    fixed, dynamic, each = (
        counts("roberta-large", method).trainable for method in (UPL(10, "fixed"), UPL(10), UPL(10, per_token=True))
    )
    assert fixed == 10 * 1024 + (1024 * 16 + 16) + (16 * 10 * 1024 + 10 * 1024)
    assert dynamic - fixed == 65_665 and each - dynamic == 9 * 65
    assert counts("roberta-large", UPL(10, "fixed", learned=True)).trainable == fixed + 1


@torch.no_grad()
@pytest.mark.parametrize(
    "settings",
    [{"mode": "fixed", "share": 0.3}, {"mode": "fixed", "learned": True}, {}, {"per_token": True}],
    ids=["fixed", "learned", "dynamic", "per token"],
)
def test_blend_by_hand(settings: dict[str, Any]) -> None:
    base, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    part: Any
    (part,) = cases.grafted(tuned, "upl", **settings).parts.values()
    batch = zoo.batch(base)
    ours = zoo.forward(tuned, batch)
    for row, length in enumerate(zoo.LENGTHS):
        ids = batch["input_ids"][row : row + 1, :length]
        m = base.bert(ids).last_hidden_state[0].mean(0)
        inner = torch.relu(part.down @ m + part.down_bias)
        generated = torch.stack([part.up[i] @ inner + part.up_bias[i] for i in range(3)])
        if settings.get("mode") == "fixed":
            share = 1 / (1 + (-part.a).exp()) if settings.get("learned") else torch.tensor(0.3)
        else:
            share = 1 / (1 + (-(part.w2 @ torch.tanh(part.W1 @ m + part.b1) + part.b2)).exp())
        assert share.numel() == (3 if settings.get("per_token") else 1) and 0 < share.min() < 1
        prompt = share.reshape(-1, 1) * part.P + (1 - share.reshape(-1, 1)) * generated
        inputs = torch.cat((prompt[None], base.get_input_embeddings()(ids)), 1)
        expected = base(inputs_embeds=inputs).logits[:, 3:]
        torch.testing.assert_close(ours[row : row + 1, :length], expected, atol=3e-5, rtol=3e-5)


@torch.no_grad()
def test_every_form_starts_at_its_share() -> None:
    model, batch = zoo.tiny("t5"), zoo.batch(zoo.tiny("t5"))
    adapters: list[Any] = []
    found = []
    for settings in ({"mode": "fixed"}, {"mode": "fixed", "learned": True}, {}, {"per_token": True}):
        adapters.append(attach(model, UPL(3, share=0.2, **settings), f"a{len(adapters)}"))
        first, part = (next(iter(adapter.parts.values())) for adapter in (adapters[0], adapters[-1]))
        for name in ("P", "down", "up", "up_bias"):
            getattr(part, name).copy_(getattr(first, name))
        found.append(zoo.forward(model, batch))
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], atol=1e-5, rtol=1e-5)


def test_everything_trains_but_the_gate_s_first_map_at_the_first_step() -> None:
    model = zoo.tiny("bert", "classification")
    adapter = attach(model, UPL(3), head=False)
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    silent = {name.rpartition(".")[2] for name, p in adapter.named_parameters() if not p.grad.any()}
    assert silent == {"W1", "b1"}


def test_refusals() -> None:
    for name in ("tokens", "hidden", "bottleneck"):
        with pytest.raises(BadInput, match=f"UPL: {name} must be at least 1"):
            UPL(**{name: 0})
    with pytest.raises(BadInput, match=r"share must be between 0 and 1, got 1\.0\. Try 0\.5"):
        UPL(share=1.0)
    with pytest.raises(BadInput, match=r"learned is for mode fixed, got True\. Try mode='fixed'"):
        UPL(learned=True)
    with pytest.raises(BadInput, match=r"per_token is for mode dynamic, got True\. Try mode='dynamic'"):
        UPL(mode="fixed", per_token=True)
    with pytest.raises(Refused, match="whole row"):
        attach(zoo.tiny("gpt2"), UPL())
