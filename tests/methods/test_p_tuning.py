"""P-tuning: published counts, PyTorch's own LSTM as judge, the deployed form, refusals."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach, detach
from graft.checkpoint import load, save
from graft.errors import BadInput
from graft.methods.p_tuning import PTuning
from methods.sizes import counts

PUBLISHED = [
    ("roberta-base", PTuning(9), 8_278_272),
    ("roberta-base", PTuning(20, "hf"), 229_376),  # Hugging Face PEFT: 821,506 with the head
    ("roberta-base", PTuning(9, "mlp"), 6_912 + 1_181_184),
    ("roberta-base", PTuning(9, "none"), 6_912),
    ("t5-base", PTuning(20, "none"), 20 * 768),  # in the encoder alone
]


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: PTuning, trainable: int) -> None:
    found = counts(model, method)
    assert found.trainable == trainable
    assert found.stored - 4 * found.head == 4 * method.tokens * 768


def network(part: Any, encoder: str) -> Tensor:
    """What the encoder makes of P, by PyTorch's own modules with the part's numbers in them."""
    width, x = part.P.shape[1], part.P[None]
    if encoder == "lstm":
        lstm = nn.LSTM(width, width // 2, num_layers=2, bidirectional=True, batch_first=True)
        for k in range(2):
            for at, end in enumerate(("", "_reverse")):
                for name, kind in (("Wx", "weight_ih"), ("Wh", "weight_hh"), ("bx", "bias_ih"), ("bh", "bias_hh")):
                    getattr(lstm, f"{kind}_l{k}{end}").data = getattr(part, f"{name}_{k}")[at].detach()
        x = lstm(x)[0]
    for i in range({"lstm": 2, "mlp": 2, "hf": 3, "none": 0}[encoder]):
        x = torch.relu(x) if i else x
        x = x @ getattr(part, f"W_{i}").T + getattr(part, f"b_{i}")
    return x[0]


@pytest.mark.parametrize("encoder", ["lstm", "mlp", "hf", "none"])
def test_network_by_pytorch_and_tokens_in_front(encoder: str) -> None:
    base, tuned = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "p_tuning", encoder=encoder)
    (part,) = adapter.parts.values()
    expected = network(part, encoder)
    torch.testing.assert_close(part.tokens(None), expected, atol=1e-5, rtol=1e-5)
    ids = zoo.batch(base)["input_ids"][:1]
    inputs = torch.cat((expected[None], base.get_input_embeddings()(ids)), 1)
    theirs = base(inputs_embeds=inputs).logits[:, 3:]
    torch.testing.assert_close(tuned(input_ids=ids).logits, theirs, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("name", ["llama", "t5", "bert"])
def test_stored_without_the_network(name: str, tmp_path: Any) -> None:
    model = zoo.tiny(name)
    adapter = cases.grafted(model, "p_tuning")
    batch = zoo.batch(model)
    expected = zoo.forward(model, batch)
    save(model, "default", tmp_path / "a")
    detach(model)
    served = load(model, tmp_path / "a")
    assert served.method == PTuning(3, "none", 6) == adapter.method.serving()
    assert [p.shape for p in served.parameters()] == [(3, 32)]
    torch.testing.assert_close(zoo.forward(model, batch), expected, atol=1e-5, rtol=1e-5)


def test_everything_has_a_gradient_at_the_first_step() -> None:
    model = zoo.tiny("bert")
    adapter = attach(model, PTuning(4))
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())


def test_refusals() -> None:
    with pytest.raises(BadInput, match="PTuning: tokens must be at least 1"):
        PTuning(0)
    with pytest.raises(BadInput, match="PTuning: hidden must be at least 1"):
        PTuning(encoder="hf", hidden=0)
    odd = zoo.tiny("gpt2", n_embd=33, n_head=3)
    with pytest.raises(BadInput, match=r"cannot halve the width 33\. Try encoder=mlp"):
        attach(odd, PTuning(3))
