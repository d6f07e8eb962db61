"""ConvAdapter: the size of its code, every block by hand row by row, padding of sound, its cache, starts, refusals."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import DynamicCache

import cases
import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.conv_adapter import ConvAdapter
from methods.sizes import counts

LAYERS = {"bert": "bert.encoder.layer", "wav2vec2": "encoder.layers", "llama": "model.layers"}


def test_counts_are_those_of_the_code() -> None:
    found = counts("wav2vec2-large", ConvAdapter())
    assert (found.trainable, found.head) == (24 * 141_824, 265_227)
    assert found.trainable + found.head == 3_669_003
    assert counts("roberta-base", ConvAdapter()).trainable == 12 * (768**2 // 8 + 10 * 768 + 384)


def by_hand(part: Any, x: Tensor, causal: bool) -> Tensor:
    """One row (n, d) without padding, by PyTorch's own modules."""
    width = x.shape[1]

    def conv(weight: Tensor) -> nn.Conv1d:
        out, per_group, kernel = weight.shape
        groups = width // 2
        made = nn.Conv1d(
            per_group * groups, out, kernel, groups=groups, bias=False, padding="valid" if causal else "same"
        )
        made.weight.data = weight.detach()
        return made

    def run(module: nn.Conv1d, c: Tensor) -> Tensor:
        front = c.new_zeros(len(c), module.kernel_size[0] - 1 if causal else 0)
        return module(torch.cat((front, c), 1)[None])[0]

    u = torch.nn.functional.layer_norm(x, (width,), part.gain, part.shift)
    c = run(conv(part.C3), run(conv(part.C2), run(conv(part.C1), u.T).relu())).T
    rows = []
    for t in range(len(x)):
        mean = (c[: t + 1] if causal else c).mean(0)
        rows.append(x[t] + c[t] * torch.sigmoid(part.W2 @ (part.W1 @ mean).relu()))
    return torch.stack(rows)


@pytest.mark.parametrize(("name", "left"), [("bert", False), ("llama", False), ("llama", True), ("wav2vec2", False)])
def test_blocks_by_hand(name: str, left: bool) -> None:
    base, tuned = (zoo.tiny(name, "base" if name == "wav2vec2" else "lm") for _ in range(2))  # its head would train
    adapter = cases.grafted(tuned, "conv_adapter")
    batch = zoo.batch(base, left_padding=left)
    seen = batch["attention_mask"].bool() if "attention_mask" in batch else None

    def act(part: Any) -> Any:
        def hook(module: nn.Module, args: tuple, output: Any) -> Any:
            y = output if isinstance(output, Tensor) else output[0]
            new = y.clone()
            for row in range(len(y)):
                at = slice(None) if seen is None else seen[row]
                new[row, at] = by_hand(part, y[row, at], name == "llama")
            return new if isinstance(output, Tensor) else (new, *output[1:])

        return hook

    for layer, part in zip(base.get_submodule(LAYERS[name]), adapter.parts.values(), strict=True):
        layer.register_forward_hook(act(part))
    want, found = zoo.forward(base, batch), zoo.forward(tuned, batch)
    at = slice(None) if seen is None else seen
    torch.testing.assert_close(found[at], want[at], atol=3e-5, rtol=3e-5)


def test_padding_of_sound_changes_nothing() -> None:
    model = zoo.tiny("wav2vec2", "base", feat_extract_norm="layer")
    cases.grafted(model, "conv_adapter")
    sound = torch.randn(1, 400)
    alone = model(input_values=sound).last_hidden_state
    padded, mask = torch.cat((sound, torch.zeros(1, 160)), 1), torch.ones(1, 560, dtype=torch.long)
    mask[:, 400:] = 0
    together = model(input_values=padded, attention_mask=mask).last_hidden_state
    assert together.shape[1] > alone.shape[1]
    torch.testing.assert_close(together[:, : alone.shape[1]], alone, atol=3e-5, rtol=3e-5)


def test_token_by_token_with_a_cache() -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "conv_adapter")
    ids = torch.randint(5, zoo.VOCABULARY, (2, 14))  # longer than the convolutions reach
    whole, cache = model(input_ids=ids).logits, DynamicCache(config=model.config)
    steps = [model(input_ids=ids[:, t : t + 1], past_key_values=cache, use_cache=True).logits for t in range(14)]
    torch.testing.assert_close(torch.cat(steps, 1), whole, atol=3e-5, rtol=3e-5)
    assert len(cache.layers) == 2 + 2 * 2


@pytest.mark.parametrize("left", [False, True])
def test_virtual_tokens_are_not_convolved_with_a_cache_or_without(left: bool) -> None:
    model = zoo.tiny("llama")
    cases.move(attach(model, cases.method("prompt_tuning") + cases.method("conv_adapter")))
    batch = zoo.batch(model, left_padding=left)
    real = batch["attention_mask"].bool()
    cached, whole = (model(**batch, use_cache=on).logits[real] for on in (True, False))
    torch.testing.assert_close(cached, whole, atol=3e-5, rtol=3e-5)


def test_published_start_is_not_the_base() -> None:
    model = zoo.tiny("wav2vec2")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    attach(model, ConvAdapter(init="published"))
    assert (zoo.forward(model, batch) - base).abs().max() > 1e-3


def test_refusals() -> None:
    with pytest.raises(BadInput, match="ConvAdapter: reduction must be at least 1"):
        ConvAdapter(0)
    with pytest.raises(
        BadInput, match=r"at encoder\.0\.layer the width 32 has to be even, and at least the reduction 33"
    ):
        attach(zoo.tiny("bert"), ConvAdapter(33))
