"""Switching parts off by layer: none is the adapter, all is the base, some is what an adapter of the others does."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach, detach, grafted, merge, use
from graft.attach.silence import silenced
from graft.errors import BadInput, Refused
from graft.methods.houlsby import Houlsby
from graft.methods.lora import LoRA
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning
from graft.methods.top_layers import TopLayers

# What acts in layers alone; the others have their own tests.
OUTSIDE = (
    "top_layers",
    "offsite",
    "ladder_side",
    "prompt_tuning",
    "p_tuning",
    "prompt_tuning+dora",
    "weighted_sum",
    "side_tuning",
    "res_tuning_bypass",
    "idpt",
    "upl",
)
LAYERED = [name for name in cases.NAMES if name not in OUTSIDE]
MODELS = ("llama", "bert", "gpt2", "t5", "bart")
GREEDY = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "pad_token_id": 0}


def outputs(model: nn.Module, left: bool = False) -> Tensor:
    batch = zoo.batch(model, left_padding=left)  # type: ignore[arg-type]
    with torch.no_grad():
        out = zoo.forward(model, batch)  # type: ignore[arg-type]
    return out[batch["attention_mask"].bool()] if out.shape[:2] == batch["attention_mask"].shape else out


def close(ours: Tensor, other: Tensor) -> None:
    torch.testing.assert_close(ours, other, rtol=1e-4, atol=2e-5)


# By default these act outside the layers too, where nothing is switched off, or not in all of them.
INSIDE = {"bitfit": {"sites": "all-linear"}, "ln_tuning": {"sites": "norm @ 0-1"}, "adapter_drop": {"robust": True},
          **{name: {"train_layernorm": False} for name in ("hyperformer", "houlsby", "compacter", "compacter_plus_plus",
                                                           "low_rank_adapter", "phm_adapter")}}  # fmt: skip


@pytest.mark.parametrize("name", LAYERED)
@pytest.mark.parametrize("on", cases.some(sorted(MODELS, key=lambda on: on not in cases.FEW), 2))
def test_none_is_the_adapter_all_is_the_base(name: str, on: str) -> None:
    model = zoo.tiny(on)
    base = outputs(model)
    cases.grafted(model, name, **INSIDE.get(name, {}))
    ours = outputs(model)
    assert not torch.allclose(ours, base, atol=1e-3)
    with silenced(model, "default", ()):
        assert torch.equal(outputs(model), ours)
    with silenced(model, "default", range(9)):
        close(outputs(model), base)
    with silenced(model, "default", [1]):
        some = outputs(model)
        assert not torch.allclose(some, ours, atol=1e-4) and not torch.allclose(some, base, atol=1e-4)
    assert torch.equal(outputs(model), ours)


@pytest.mark.parametrize(
    "make",
    [lambda sites: LoRA(rank=2, sites=f"q v {sites}"), lambda sites: Houlsby(3, sites=f"attention ffn {sites}",
     train_layernorm=False), lambda sites: PrefixTuning(3, sites=f"attention {sites}")],
)  # fmt: skip
@pytest.mark.parametrize("on", ["llama", "bert", "gpt2"])
def test_some_is_an_adapter_of_the_others(on: str, make: Callable[[str], object]) -> None:
    model = zoo.tiny(on)
    parts = cases.attach(model, make("")).parts  # type: ignore[arg-type]
    cases.move(grafted(model).adapters["default"])  # type: ignore[union-attr]
    values = {key: part.state_dict() for key, part in parts.items()}
    with silenced(model, "default", [0]):
        ours = outputs(model)
    detach(model)
    for key, part in attach(model, make("@ top 1")).parts.items():  # type: ignore[arg-type]
        part.load_state_dict(values[key])
    close(ours, outputs(model))


@pytest.mark.parametrize("name", ["lora", "prefix_tuning", "lora+prefix_tuning", "houlsby", "dora"])
@pytest.mark.parametrize("on", ["llama", "gpt2", "t5"])
def test_generation_with_a_cache(name: str, on: str) -> None:
    model = zoo.tiny(on)
    batch = zoo.batch(model, left_padding=on != "t5")
    batch = {key: batch[key] for key in ("input_ids", "attention_mask")}

    def written(cached: bool = True) -> Tensor:
        scores = model.generate(**batch, **GREEDY, use_cache=cached, output_scores=True, return_dict_in_generate=True)
        return torch.stack(scores.scores)

    base = written()
    cases.grafted(model, name, **INSIDE.get(name, {}))
    ours = written()
    with silenced(model, "default", range(9)):
        close(written(), base)
    with silenced(model, "default", [0]):
        some = written()
        torch.testing.assert_close(some, written(cached=False), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(some, ours) and not torch.allclose(some, base)
    assert torch.equal(written(), ours)


def test_heads_and_embeddings_stay() -> None:
    model = zoo.tiny("bert", "classification")
    cases.grafted(model, "lora")
    with silenced(model, "default", range(9)):
        ours = outputs(model)
    detach(model)
    base = outputs(model)
    assert not torch.allclose(ours, base, atol=1e-3)
    cases.grafted(model, "prompt_tuning+dora")
    with silenced(model, "default", range(9)):
        some = outputs(model)
    detach(model)
    assert not torch.allclose(some, base, atol=1e-3)


def test_only_the_one_adapter_is_silenced_and_all_is_restored() -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "lora", "a")
    cases.grafted(model, "prefix_tuning", "b")
    ours = outputs(model)
    record = grafted(model)
    assert record is not None
    works = {path: dict(spot.work) for path, spot in record.spots.items()}
    with pytest.raises(ZeroDivisionError), silenced(model, "b", range(9)):
        raise ZeroDivisionError
    with silenced(model, "a", range(9)):
        assert torch.equal(outputs(model), ours)
        with silenced(model, "b", [0]), use(model, ["a", "b"]):
            outputs(model)
    assert {path: dict(spot.work) for path, spot in record.spots.items()} == works
    assert torch.equal(outputs(model), ours)


def test_what_has_no_parts_at_layers_is_refused() -> None:
    model = zoo.tiny("llama")
    attach(model, TopLayers(1))
    with pytest.raises(Refused, match="own weights"), silenced(model, "default", [0]):
        pass
    detach(model)
    cases.grafted(model, "lora")
    merge(model, "default")
    with pytest.raises(Refused, match="own weights"), silenced(model, "default", [0]):
        pass
    with pytest.raises(BadInput, match="no adapter 'x'"), silenced(model, "x", [0]):
        pass
    for name in ("ladder_side", "prompt_tuning"):
        other = zoo.tiny("llama")
        cases.grafted(other, name)
        with pytest.raises(Refused, match="no parts at layers"), silenced(other, "default", [0]):
            pass
    sum_ = zoo.tiny("llama")
    cases.move(attach(sum_, PromptTuning(2) + LoRA(rank=2)))
    with silenced(sum_, "default", [0]):
        outputs(sum_)
