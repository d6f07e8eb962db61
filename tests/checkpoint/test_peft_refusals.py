"""What PEFT's format cannot say and what its checkpoints say that graft does not mean: refused, with the reason."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch

import cases
import zoo
from graft.attach import attach, grafted, merge
from graft.checkpoint import export, load, save
from graft.errors import BadInput, Refused
from graft.method import Method
from graft.methods.adalora import AdaLoRA
from graft.methods.fourier_ft import FourierFT
from graft.methods.hra import HRA
from graft.methods.llama_adapter import LLaMAAdapter
from graft.methods.ln_tuning import LNTuning
from graft.methods.loha import LoHa
from graft.methods.lokr import LoKr
from graft.methods.lora import LoRA
from graft.methods.oft import OFT
from graft.methods.p_tuning import PTuning
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.vera import VeRA

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


@pytest.mark.parametrize(
    ("model_name", "method", "said"),
    [
        ("llama", "houlsby", "no Houlsby"),
        ("llama", "bitfit", "no BitFit"),
        ("llama", "top_layers", "no TopLayers"),
        ("llama", "mam", "one method in an adapter"),
        ("llama", "lora+prefix_tuning", r"LoRA \+ PrefixTuning"),
        ("t5", "prefix_tuning", "decoder self-attention only"),
        ("bert", "prompt_tuning", "variant='hf'"),
        ("bert", "p_tuning", "pools an encoder at a virtual token"),
        ("llama", "llama_adapter", "gate='hf'"),
        ("albert", "prefix_tuning", "one attention to a layer"),
    ],
)
def test_what_peft_cannot_express_is_refused_with_the_reason(
    model_name: str, method: str, said: str, tmp_path: Path
) -> None:
    model = zoo.tiny(model_name)
    cases.grafted(model, method, "mine")
    with pytest.raises(Refused, match=said):
        export(model, "mine", tmp_path / "peft")
    assert not list(tmp_path.iterdir())
    save(model, "mine", tmp_path / "native")
    assert not (tmp_path / "native" / "adapter_config.json").exists()
    assert "Not in Hugging Face PEFT's format" in (tmp_path / "native" / "README.md").read_text()


def test_other_refusals_on_export(tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "lora", "mine")
    merge(model, "mine")
    with pytest.raises(Refused, match="Unmerge"):
        export(model, "mine", tmp_path / "peft")
    model = zoo.tiny("mixtral")
    cases.move(attach(model, LoRA(rank=2, sites="down"), "mine"))
    with pytest.raises(Refused, match="fused experts"):
        export(model, "mine", tmp_path / "peft")
    model = zoo.tiny("llama")
    cases.move(attach(model, PrefixTuning(tokens=2, sites="attention @ 1"), "mine"))
    with pytest.raises(Refused, match="every layer"):
        export(model, "mine", tmp_path / "peft")
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="other things"):
        export(model, "mine", tmp_path / "peft")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"peft_type": "BOFT"}, "BOFT"),
        ({"bias": "all"}, "bias='all'"),
        ({"lora_bias": True}, "lora_bias"),
        ({"init_lora_weights": "pissa"}, "changes the base"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"layer_replication": [[0, 2]]}, "layer_replication"),
        ({"target_parameters": ["mlp.experts"]}, "target_parameters"),
        ({"use_future_thing": "yes"}, "use_future_thing='yes'"),
        ({"alpha_pattern": {".*q_proj": 3}}, "not patterns"),
        ({"rank_pattern": [3]}, "rank_pattern"),
        ({"r": "3"}, "rank '3'"),
        ({"r": 2}, "of another shape"),
        ({"r": 10**9}, "need"),
        ({"lora_alpha": None}, "alpha None"),
        ({"target_modules": ["q_proj"]}, "not expected"),
        ({"target_modules": ["q_proj", "v_proj", "k_proj"]}, "missing"),
        ({"target_modules": ["nothing"]}, "none of the modules"),
        ({"target_modules": 3}, "target_modules"),
        ({"lora_dropout": 3}, "lora_dropout"),
        ({"modules_to_save": ["lm_head"]}, "lacks base_model.model.lm_head.weight; .* lm_head in modules_to_save"),
        ({"modules_to_save": ["embed_tokens", "score"]}, "lacks base_model.model.model.embed_tokens.weight; "),
    ],
)
def test_a_checkpoint_that_means_something_else_is_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "lora", "mine")
    export(model, "mine", tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    fresh = zoo.tiny("llama")
    with pytest.raises((Refused, BadInput), match=said):
        load(fresh, tmp_path)
    assert grafted(fresh) is None


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        (VeRA(rank=3), {"r": 4}, r"vera_A, base_model\.vera_B of another shape"),
        (VeRA(rank=3), {"r": "4"}, "VeRA: rank must be a whole number"),
        (VeRA(rank=3), {"save_projection": "no"}, "save_projection='no' is neither true nor false"),
        (VeRA(rank=3), {"save_projection": False, "projection_prng_key": None}, "VeRA: seed must be a whole number"),
        (VeRA(rank=3), {"bias": "vera_only"}, "bias='vera_only'"),
        (VeRA(rank=3), {"target_modules": ["input_layernorm"]}, "none of the modules"),
        (AdaLoRA(init_rank=3, target_rank=2), {"init_r": 4}, "of another shape"),
        (AdaLoRA(init_rank=3, target_rank=2), {"tinit": "1"}, "warmup='1', which are no numbers"),
        (
            AdaLoRA(init_rank=3, target_rank=2),
            {"rank_pattern": {"model.layers.0.self_attn.q_proj.lora_E": [True]}},
            "no 3 times true or false",
        ),
        (LLaMAAdapter(tokens=2, gate="hf"), {"adapter_layers": 9}, "in 9 of 2 layers"),
        (LLaMAAdapter(tokens=2, gate="hf"), {"adapter_len": 3}, "of another shape"),
        (PTuning(tokens=2), {"num_virtual_tokens": 3}, "of another shape"),
        (LoHa(rank=2), {"r": 3}, "of another shape"),
        (LoHa(rank=2), {"r": 0}, "the rank 0"),
        (LoHa(rank=2), {"alpha": None}, "the alpha None"),
        (LoHa(rank=2), {"r": 10**9}, "need"),
        (LoHa(rank=2), {"rank_dropout": 0.1}, r"rank_dropout=0\.1"),
        (LoHa(rank=2), {"target_modules": ["embed_tokens"]}, "at linears only"),
        (LoKr(rank=2), {"decompose_factor": None}, "decompose_factor None"),
        (LoKr(rank=2), {"decompose_factor": 2}, "of another shape"),
        (LoKr(rank=2), {"decompose_both": 1}, "decompose_both=1 is neither"),
        (HRA(rank=4), {"r": 3}, "of another shape"),
        (HRA(rank=4), {"r": 2}, "of another shape"),
        (OFT(block=8), {"coft": True}, "coft=True"),
        (OFT(block=8), {"module_dropout": 0.2}, r"module_dropout=0\.2"),
        (OFT(block=8), {"r": 2}, "one must be 0"),
        (OFT(block=8), {"oft_block_size": 16}, "of another shape"),
        (OFT(block=8, variant="neumann"), {"peft_version": "0.17.1"}, r"PEFT 0\.17\.1: its series changed in 0\.18"),
        (OFT(block=8, variant="neumann"), {"peft_version": None}, "of an unknown version"),
        (OFT(block=8, variant="neumann"), {"num_cayley_neumann_terms": 2}, "fewer than 3"),
        (FourierFT(frequencies=5), {"n_frequency": 6}, "of another shape"),
        (FourierFT(frequencies=5), {"n_frequency": None}, "None frequencies"),
        (FourierFT(frequencies=5), {"n_frequency_pattern": {".*q_proj": 6}}, "not patterns"),
        (FourierFT(frequencies=5), {"scaling": "big"}, "FourierFT: scale must be a number"),
        (LNTuning(), {"target_modules": ["norm"]}, "not expected"),
        (LNTuning(), {"target_modules": ["norm", "lm_head"]}, "lm_head: graft reads this method at norms only"),
    ],
    ids=str,
)
def test_other_methods_checkpoints_that_mean_something_else(
    method: Method, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    model = zoo.tiny("llama")
    cases.move(attach(model, method, "mine"))
    export(model, "mine", tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    fresh = zoo.tiny("llama")
    with pytest.raises((Refused, BadInput), match=said):
        load(fresh, tmp_path)
    assert grafted(fresh) is None


@pytest.mark.parametrize(
    ("model_name", "method", "said"),
    [
        (
            "gpt2",
            LoHa(rank=2),
            r"one LoHa for all of transformer\.h\.0\.attn\.c_attn, of which decoder\.0\.q is a share",
        ),
        ("gpt2", VeRA(rank=2), "one VeRA for all"),
        ("gpt2", OFT(block=8, sites="o"), r"PEFT's OFT is for nn\.Linear only"),
        ("llama", LoHa(rank=2, sites="embed"), r"LoHa is for nn\.Linear only"),
        ("llama", FourierFT(frequencies=2, sites="embed"), "FourierFT is for linear maps only"),
        ("llama", OFT(block=8, variant="neumann", terms=3), "below 4 terms, this has 3"),
        ("gpt2", AdaLoRA(init_rank=3, target_rank=2), "one AdaLoRA for all"),
        ("gpt2", LLaMAAdapter(gate="hf"), "on llama and mistral only, this is gpt2"),
        ("llama", LLaMAAdapter(gate="hf", sites="attention @ 0"), "in the top layers"),
    ],
    ids=str,
)
def test_other_methods_that_peft_has_for_less(model_name: str, method: Method, said: str, tmp_path: Path) -> None:
    model = zoo.tiny(model_name)
    cases.move(attach(model, method, "mine"))
    with pytest.raises(Refused, match=said):
        export(model, "mine", tmp_path / "peft")


def test_places_that_a_seed_does_not_give_cannot_be_told_to_peft(tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, FourierFT(frequencies=4), "mine")
    adapter.parts["shared.0"].at.copy_(torch.arange(4))
    with pytest.raises(Refused, match="seed 777 gives other places than this adapter has"):
        export(model, "mine", tmp_path / "peft")
    save(model, "mine", tmp_path / "native")
    again = zoo.tiny("llama")
    load(again, tmp_path / "native")
    assert torch.equal(zoo.forward(again, zoo.batch(again)), zoo.forward(model, zoo.batch(model)))


def test_vectors_on_the_other_side_are_refused(tmp_path: Path) -> None:
    them = peft.get_peft_model(zoo.tiny("llama"), peft.IA3Config(target_modules=["o_proj"], feedforward_modules=[]))
    them.save_pretrained(tmp_path)
    with pytest.raises(Refused, match="other side"):
        load(zoo.tiny("llama"), tmp_path)


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        (AdaLoRA(init_rank=3, target_rank=2, alpha=-3.5), {}, "PEFT takes the rank for an alpha that is not above 0"),
        (
            LLaMAAdapter(tokens=2, gate="hf"),
            {"attention_bias": True},
            "the bias of an attention's output projection twice",
        ),
        (VeRA(rank=2, decomposed=True), {}, "PEFT has no VeRA with trained magnitudes"),
    ],
    ids=str,
)
def test_what_peft_would_read_as_something_else_is_not_written(
    method: Method, changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    model = zoo.tiny("llama", **changes)
    cases.move(attach(model, method, "mine"))
    with pytest.raises(Refused, match=said):
        export(model, "mine", tmp_path / "peft")
    save(model, "mine", tmp_path / "own")
    assert (tmp_path / "own" / "graft.json").is_file()
