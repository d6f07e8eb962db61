"""IDPT: counts, both prompts by hand in front of the embeddings, what they depend on, the stored form, refusals."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach, detach, use
from graft.checkpoint import load, save
from graft.errors import BadInput, Refused
from graft.methods.idpt import IDPT, Generated
from methods.sizes import counts

COUNTS = [
    ("roberta-large", IDPT(20, reparameterize=False), 131_200 + 20 * 1024),
    ("roberta-large", IDPT(20), 131_200 + 20 * 1024 + 2 * (1024**2 + 1024)),
    ("t5-base", IDPT(5, "idpg", bottleneck=16), 768 * 16 + 16 + 16 * 5 * 768 + 5 * 768),
    ("t5-base", IDPT(5, "idpg", bottleneck=16, n=8), 768 * 2 + 16 + 2 * 5 * 768 + 5 * 768 + 2 * 512),
]


@pytest.mark.parametrize(("model", "method", "trainable"), COUNTS)
def test_counts(model: str, method: IDPT, trainable: int) -> None:
    found = counts(model, method)
    assert found.trainable == trainable
    assert found.stored - 4 * found.head == 4 * (trainable if method.variant == "idpg" else 131_200 + 20 * 1024)


def prompt(variant: str, part: Any, x: Tensor, states: Tensor) -> Tensor:
    """The prompt (n, d) of one row of real tokens, token by token."""
    if variant == "kronecker":
        down, up = (sum(map(torch.kron, A, B)) for A, B in ((part.down_A, part.down_B), (part.up_A, part.up_B)))
        return (torch.relu(states.mean(0) @ down + part.down_bias) @ up).view(3, -1) + part.up_bias
    if variant == "idpg":
        inner = torch.relu(part.down @ states.mean(0) + part.down_bias)
        return torch.stack([up @ inner + bias for up, bias in zip(part.up, part.up_bias, strict=True)])
    p = torch.relu(part.P @ part.W_0.T + part.b_0) @ part.W_1.T + part.b_1
    q, k = p @ part.W_q.T + part.b_q, x @ part.W_k.T + part.b_k
    rho = [torch.sigmoid(torch.stack([q_i @ k_t / math.sqrt(len(q_i)) for k_t in k]).mean()) for q_i in q]
    return torch.stack([r * p_i for r, p_i in zip(rho, p, strict=True)])


@torch.no_grad()
@pytest.mark.parametrize("variant", ["ipl", "idpg", "kronecker"])
def test_prompts_by_hand(variant: str) -> None:
    """Of each row alone, without its padding, which stands on either side in the batch."""
    base, tuned = zoo.tiny("bert"), zoo.tiny("bert")
    settings = {"variant": "idpg", "n": 2} if variant == "kronecker" else {"variant": variant}
    (part,) = cases.grafted(tuned, "idpt", **settings).parts.values()
    batch = zoo.batch(base)
    ours = zoo.forward(tuned, batch)
    for row, length in enumerate(zoo.LENGTHS):
        ids = batch["input_ids"][row : row + 1, :length]
        x = base.get_input_embeddings()(ids)
        p = prompt(variant, part, x[0], base.bert(ids).last_hidden_state[0])
        expected = base(inputs_embeds=torch.cat((p[None], x), 1)).logits[:, 3:]
        torch.testing.assert_close(ours[row : row + 1, :length], expected, atol=3e-5, rtol=3e-5)


@pytest.mark.parametrize("name", ["electra", "albert"])
def test_embeddings_narrower_than_the_model(name: str) -> None:
    model = zoo.tiny(name)
    adapter = cases.grafted(model, "idpt", variant="idpg")
    (part,) = adapter.parts.values()
    assert part.up.shape == (3, 16, 4) and part.down.shape == (4, 32)
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())


def test_the_second_forward_is_the_base_s_own_in_training_too() -> None:
    """Beside another method, with dropout on: M(x) is that of the plain model, and the rest of the forward is not."""
    model = zoo.tiny("t5", dropout=0.5)
    batch = zoo.batch(model)
    plain = model.encoder(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    adapter = attach(model, IDPT(3, "idpg") + cases.method("lora") + cases.method("ladder_side"))
    cases.move(adapter)
    seen: list[Tensor] = []
    part = next(part for part in adapter.parts.values() if isinstance(part, Generated))
    original = part.tokens
    object.__setattr__(part, "tokens", lambda call: (seen.append(call.states), original(call))[1])
    model.train()
    zoo.forward(model, batch).square().mean().backward()
    torch.testing.assert_close(seen[0], plain)
    assert not seen[0].requires_grad and model.encoder.training and part.training
    assert all(p.grad is not None for p in part.parameters())


@torch.no_grad()
@pytest.mark.parametrize("variant", ["ipl", "idpg"])
def test_rows_of_two_adapters_and_of_none(variant: str) -> None:
    model = zoo.tiny("t5")
    cases.grafted(model, "idpt", "mine", variant=variant)
    cases.move(attach(model, IDPT(5) + cases.method("prompt_tuning"), "other"))
    batch = zoo.batch(model)
    for names in (["mine", "other"], ["other", None]):
        with use(model, names):
            together = zoo.forward(model, batch)
        for row, name in enumerate(names):
            with use(model, name):
                torch.testing.assert_close(together[row], zoo.forward(model, batch)[row], atol=3e-5, rtol=3e-5)


def test_stored_without_the_network(tmp_path: Path) -> None:
    model = zoo.tiny("bert")
    adapter = cases.grafted(model, "idpt")
    batch = zoo.batch(model)
    expected = zoo.forward(model, batch)
    save(model, "default", tmp_path / "a")
    detach(model)
    served = load(model, tmp_path / "a")
    assert served.method == adapter.method.serving() == IDPT(3, "ipl", 6, False, 4)
    assert sum(p.numel() for p in served.parameters()) == 3 * 32 + 2 * (32 * 6 + 6)
    torch.testing.assert_close(zoo.forward(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_refusals() -> None:
    with pytest.raises(BadInput, match="n=3 has to divide the model's width 32, the bottleneck 4 and the 3 tokens"):
        cases.grafted(zoo.tiny("bert"), "idpt", variant="idpg", n=3)
    for name in ("tokens", "hidden", "bottleneck", "n"):
        with pytest.raises(BadInput, match=f"IDPT: {name} must be at least 1"):
            IDPT(**{name: 0})
    model: nn.Module = zoo.tiny("llama")
    with pytest.raises(Refused, match=r"(?s)whole row.*what stands behind it.*Use an encoder"):
        attach(model, IDPT())
    assert attach(model, cases.method("prompt_tuning")).coverage
