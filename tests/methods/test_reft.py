"""ReFT: published counts, every layer by hand, which tokens are edited, that R stays orthonormal and continuous."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput, Refused
from graft.methods.reft import Intervention, ReFT
from methods.sizes import counts

PUBLISHED = [
    ("llama-7b", ReFT(8), 2_097_408),  # the paper's 0.031 % of 6.74 billion
    ("llama-13b", ReFT(8), 3_277_120),  # 0.025 %
    ("roberta-base", ReFT(1), 18_444),  # 0.015 %
    ("roberta-large", ReFT(1), 49_176),  # 0.014 %
]
LAYERS = {"bert": "bert.encoder.layer", "llama": "model.layers", "gpt2": "transformer.h"}


@pytest.mark.parametrize(("model", "method", "trainable"), PUBLISHED)
def test_counts_are_the_published_ones(model: str, method: ReFT, trainable: int) -> None:
    assert counts(model, method).trainable == trainable


def by_hand(part: Any, h: Tensor, variant: str) -> Tensor:
    """One vector; R by Gram-Schmidt, row after row."""
    R = list(part.R.detach())
    if variant in ("loreft", "direft"):
        for i in range(len(R)):
            for j in range(i):
                R[i] = R[i] - (R[i] @ R[j]) * R[j]
            R[i] = R[i] / R[i].norm()
    wanted = part.W @ h + part.b
    if variant in ("loreft", "noreft"):
        wanted = wanted - torch.stack(R) @ h
    return h + torch.stack(R).T @ wanted


@pytest.mark.parametrize("variant", ["loreft", "noreft", "direft", "nodireft"])
@pytest.mark.parametrize(
    ("name", "prefix", "suffix", "left"),
    [("bert", 2, 3, False), ("bert", 0, 1, True), ("llama", 3, 0, True), ("gpt2", "all", 0, False)],
)
def test_layers_by_hand(name: str, prefix: Any, suffix: int, left: bool, variant: str) -> None:
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "reft", variant=variant, prefix=prefix, suffix=suffix)
    batch = zoo.batch(base, left_padding=left)
    real = batch["attention_mask"].bool()

    def edit(part: Any) -> Any:
        def hook(module: nn.Module, args: tuple, output: Any) -> Any:
            y = output if isinstance(output, Tensor) else output[0]
            new = y.clone()
            for row, seen in enumerate(real):
                at = seen.nonzero().flatten().tolist()
                chosen = at if prefix == "all" else {*at[:prefix], *(at[-suffix:] if suffix else ())}
                for token in chosen:
                    new[row, token] = by_hand(part, y[row, token], variant)
            return new if isinstance(output, Tensor) else (new, *output[1:])

        return hook

    for layer, part in zip(base.get_submodule(LAYERS[name]), adapter.parts.values(), strict=True):
        layer.register_forward_hook(edit(part))
    want, found = zoo.forward(base, batch), zoo.forward(tuned, batch)
    torch.testing.assert_close(found[real], want[real], atol=3e-5, rtol=3e-5)


def test_r_is_orthonormal_after_steps_and_moves_continuously() -> None:
    model = zoo.tiny("bert")
    adapter = attach(model, ReFT(4))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        zoo.forward(model, zoo.batch(model)).square().mean().backward()
        optimizer.step()
    for part in adapter.parts.values():
        R = part.subspace()
        torch.testing.assert_close(R @ R.T, torch.eye(4), atol=1e-5, rtol=0)
    part, found = Intervention(8, ReFT(2)), []
    with torch.no_grad():
        for pivot in torch.linspace(-0.5, 0.5, 51):  # at zero factorizations change their signs
            part.R[0, 0] = pivot
            found.append(part.subspace())
    assert max(float((b - a).abs().max()) for a, b in pairwise(found)) < 0.1


@pytest.mark.parametrize("left", [False, True])
def test_virtual_tokens_are_not_edited_with_a_cache_or_without(left: bool) -> None:
    model = zoo.tiny("llama")
    cases.move(attach(model, cases.method("prompt_tuning") + cases.method("reft", prefix="all")))
    batch = zoo.batch(model, left_padding=left)
    real = batch["attention_mask"].bool()
    cached, whole = (model(**batch, use_cache=on).logits[real] for on in (True, False))
    torch.testing.assert_close(cached, whole, atol=2e-5, rtol=2e-5)


def test_refusals() -> None:
    for settings in ({"rank": 0}, {"prefix": -1}, {"suffix": -1}, {"prefix": 0}):
        with pytest.raises(BadInput, match=f"ReFT: {next(iter(settings))} "):
            ReFT(**settings)
    with pytest.raises(Refused, match="where a decoder's prompt ends"):
        attach(zoo.tiny("llama"), ReFT(4, suffix=1))
    with pytest.raises(BadInput, match=r"rank 33 at encoder\.0\.layer, of width 32"):
        attach(zoo.tiny("bert"), ReFT(33))
