"""What PEFT's format can and cannot say: refusals that name the reason, and layouts other than the usual one."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import cases
import zoo
from graft.attach import attach, grafted, merge
from graft.checkpoint import export, load, save
from graft.errors import BadInput, Refused
from graft.method import Method
from graft.methods.adalora import AdaLoRA
from graft.methods.dora import DoRA
from graft.methods.fourier_ft import FourierFT
from graft.methods.hra import HRA
from graft.methods.ia3 import IA3
from graft.methods.llama_adapter import LLaMAAdapter
from graft.methods.ln_tuning import LNTuning
from graft.methods.loha import LoHa
from graft.methods.lokr import LoKr
from graft.methods.lora import LoRA
from graft.methods.oft import OFT
from graft.methods.p_tuning import PTuning
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning
from graft.methods.vera import VeRA

# PEFT and transformers warn of each other's changes.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def outputs(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Outputs that mean something: padding may do as it likes."""
    with torch.no_grad():
        found = zoo.forward(model, batch)
    tokens = batch["attention_mask"].bool()
    return found[tokens] if found.shape[:2] == tokens.shape and "decoder_input_ids" not in batch else found


def there_and_back(model_name: str, task: str, method: Method, folder: Path, **changes: Any) -> None:
    """Graft → PEFT itself → graft: three times the same outputs."""
    model = zoo.tiny(model_name, task, **changes)
    batch = zoo.batch(model)
    cases.move(attach(model, method, "mine"))
    want = outputs(model, batch)
    export(model, "mine", folder / "peft")
    them = peft.PeftModel.from_pretrained(zoo.tiny(model_name, task, **changes), folder / "peft").eval()
    torch.testing.assert_close(outputs(them, batch), want, rtol=1e-5, atol=2e-5)
    again = zoo.tiny(model_name, task, **changes)
    load(again, folder / "peft")
    torch.testing.assert_close(outputs(again, batch), want, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("model_name", "task", "method"),
    [
        ("gpt2", "lm", LoRA(rank=2, sites="q v o")),  # one rank on c_attn, another on c_proj
        ("gpt2", "lm", LoRA(rank=2, alpha=3.0, rslora=True, sites="q k v o down")),
        ("gpt2", "lm", DoRA(rank=2, sites="q v")),
        ("gpt2", "lm", IA3(sites="k v down")),
        ("gpt_neox", "lm", LoRA(rank=2, sites="q v")),  # q, k and v interleaved by head
        ("gpt_neox", "lm", DoRA(rank=2, sites="k")),
        ("phi3", "lm", LoRA(rank=2, sites="q v gate down")),
        ("llama", "lm", LoRA(rank=2, sites="all-linear")),
        ("llama", "lm", LoRA(rank=2, sites="q v @ 1")),
        ("llama", "lm", LoRA(rank=2, sites="embed")),
        ("t5", "lm", LoRA(rank=2, sites="cross: k v")),
        ("t5", "lm", LoRA(rank=2, sites="decoder: q; encoder: up")),
        ("roberta", "classification", LoRA(rank=2)),  # a head of two layers
        ("bert", "tagging", IA3()),
        ("bert", "answers", LoRA(rank=2)),
        ("bert", "base", LoRA(rank=2)),
        ("bert", "lm", LoRA(rank=2)),
        ("t5", "lm", VeRA(rank=3, sites="q down")),  # sites of two sizes share one pair
        ("gpt2", "lm", VeRA(rank=3, sites="down o")),
        ("phi3", "lm", LoHa(rank=2, sites="o down")),
        ("bert", "answers", LoKr(rank=2, factor=8)),
        ("roberta", "classification", HRA(rank=2, sites="all-linear")),
        ("llama", "lm", OFT(block=16, sites="all-linear")),
        ("llama", "lm", FourierFT(frequencies=9, init="zeros", sites="q v down")),  # places for each of three shapes
        ("gpt2", "lm", FourierFT(frequencies=9, sites="o up")),
        ("bert", "tagging", LNTuning()),
        ("qwen3", "lm", LNTuning()),
        ("llama", "lm", LNTuning(sites="norm @ 1")),
        ("bart", "lm", LNTuning(sites="decoder: norm")),
        ("bart", "lm", PrefixTuning(tokens=2, variant="hf")),
        ("bart", "lm", PromptTuning(tokens=2)),
        ("qwen3", "lm", PrefixTuning(tokens=2)),
        ("llama", "classification", PrefixTuning(tokens=2)),
    ],
    ids=str,
)
def test_the_way_to_peft_and_back(model_name: str, task: str, method: Method, tmp_path: Path) -> None:
    there_and_back(model_name, task, method, tmp_path)


def test_tokens_that_a_network_computed_are_read_as_what_it_gave(tmp_path: Path) -> None:
    for model, task, at in (("llama", "lm", "CAUSAL_LM"), ("bert", "classification", "SEQ_CLS")):
        config = peft.PromptEncoderConfig(num_virtual_tokens=3, encoder_hidden_size=7, task_type=at)
        them = peft.get_peft_model(zoo.tiny(model, task), config).eval()
        them.save_pretrained(tmp_path / model)
        us = zoo.tiny(model, task)
        load(us, tmp_path / model)
        batch = zoo.batch(us)
        theirs = them(**batch).logits
        want = theirs[:, 3:] if model == "llama" else theirs
        tokens = batch["attention_mask"].bool() if model == "llama" else slice(None)
        torch.testing.assert_close(us(**batch).logits[tokens], want[tokens], rtol=1e-5, atol=1e-5)


def test_triplets_that_were_pruned_are_read(tmp_path: Path) -> None:
    config = peft.AdaLoraConfig(init_r=4, target_r=1, total_step=6, tinit=1, tfinal=2, deltaT=1, lora_alpha=6,
                                target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")  # fmt: skip
    them = peft.get_peft_model(zoo.tiny("llama"), config)
    batch = zoo.batch(them)
    optimizer = torch.optim.SGD([p for p in them.parameters() if p.requires_grad], lr=0.5)
    for step in range(1, 6):
        them(**batch).logits.square().mean().backward()
        optimizer.step()
        them.base_model.update_and_allocate(step)
        optimizer.zero_grad()
    pruned = {name for name, p in them.named_parameters() if "lora_E" in name and not p.all()}
    assert pruned
    them.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    us = zoo.tiny("llama")
    load(us, tmp_path)
    torch.testing.assert_close(outputs(us, batch), outputs(them.eval(), batch), rtol=1e-5, atol=1e-5)


def test_ranks_and_alphas_by_module_are_read(tmp_path: Path) -> None:
    config = peft.LoraConfig(
        r=2,
        lora_alpha=4,
        target_modules=["q_proj", "v_proj"],
        rank_pattern={"layers.1.self_attn.v_proj": 3},
        alpha_pattern={"q_proj": 7},
        layers_to_transform=[1],
        init_lora_weights=False,
    )
    them = peft.get_peft_model(zoo.tiny("llama"), config).eval()
    them.save_pretrained(tmp_path)
    us = zoo.tiny("llama")
    adapter = load(us, tmp_path)
    batch = zoo.batch(us)
    torch.testing.assert_close(outputs(us, batch), outputs(them, batch))
    assert adapter.coverage == {"q": 1, "v": 1}


@pytest.mark.parametrize(
    "config",
    [
        peft.LoHaConfig(r=2, alpha=4, rank_pattern={"layers.1.self_attn.v_proj": 3}, alpha_pattern={"q_proj": 7}),
        peft.LoKrConfig(r=2, alpha=4, rank_pattern={"layers.1.self_attn.v_proj": 5}, decompose_factor=0),
        peft.LoKrConfig(r=1, alpha=4, decompose_factor=5, layers_to_transform=[1]),  # 5 divides neither 32 nor 48
        peft.OFTConfig(oft_block_size=20, init_weights=False),  # 16 of 32 inputs, 16 or 24 of 48
        peft.OFTConfig(r=4, oft_block_size=0, init_weights=False),  # blocks of 8 and of 12
        peft.OFTConfig(oft_block_size=100, block_share=True, init_weights=False),  # one block of the input's size
        peft.FourierFTConfig(n_frequency=20, n_frequency_pattern={"down_proj": 33}),
        peft.HRAConfig(r=4, layers_to_transform=0, init_weights=False),
        peft.VeraConfig(r=4, d_initial=0.5, vera_dropout=0.25),
    ],
    ids=lambda config: config.peft_type.value,
)
def test_settings_by_module_and_sizes_that_do_not_divide_are_read(config: peft.PeftConfig, tmp_path: Path) -> None:
    config.target_modules = {"q_proj", "v_proj", "down_proj"}
    config.task_type = "CAUSAL_LM"
    them = peft.get_peft_model(zoo.tiny("llama"), config).eval()
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in them.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draws))
    them.save_pretrained(tmp_path)
    us = zoo.tiny("llama")
    load(us, tmp_path)
    batch = zoo.batch(us)
    torch.testing.assert_close(outputs(us, batch), outputs(them, batch), atol=1e-5, rtol=1e-5)


def test_an_embedding_that_peft_keeps_too_must_be_the_base_s(tmp_path: Path) -> None:
    config = peft.LoraConfig(r=2, target_modules=["embed_tokens"], init_lora_weights=False)
    them = peft.get_peft_model(zoo.tiny("llama"), config).eval()
    them.save_pretrained(tmp_path)
    us = zoo.tiny("llama")
    load(us, tmp_path)
    batch = zoo.batch(us)
    torch.testing.assert_close(outputs(us, batch), outputs(them, batch))
    with pytest.raises(Refused, match=r"another model\.embed_tokens"):
        load(zoo.tiny("llama", seed=1), tmp_path)


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
        (HRA(rank=4), {"r": 3}, "rank must be even"),
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
    assert torch.equal(outputs(again, zoo.batch(again)), outputs(model, zoo.batch(model)))


def test_targets_by_pattern_are_taken_from_the_tensors(tmp_path: Path) -> None:
    model = zoo.tiny("llama")
    cases.grafted(model, "lora", "mine")
    export(model, "mine", tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": r".*\.(q|v)_proj"}))
    fresh = zoo.tiny("llama")
    load(fresh, tmp_path)
    assert torch.equal(outputs(fresh, zoo.batch(fresh)), outputs(model, zoo.batch(model)))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    tensors["base_model.model.elsewhere.lora_A.weight"] = torch.zeros(3, 32)
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BadInput, match="not expected"):
        load(zoo.tiny("llama"), tmp_path)


def test_modules_to_save_that_this_model_does_not_have_are_no_loss(tmp_path: Path) -> None:
    """PEFT names the heads of all model families for a task."""
    model = zoo.tiny("roberta", "classification")
    cases.grafted(model, "lora", "mine")
    export(model, "mine", tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "modules_to_save": ["classifier", "score"]}))
    fresh = zoo.tiny("roberta", "classification")
    load(fresh, tmp_path)
    assert torch.equal(outputs(fresh, zoo.batch(fresh)), outputs(model, zoo.batch(model)))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    del tensors["base_model.model.classifier.dense.weight"]
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(BadInput, match=r"lacks base_model.model.classifier.dense.weight; "):
        load(zoo.tiny("roberta", "classification"), tmp_path)


def test_vectors_on_the_other_side_are_refused(tmp_path: Path) -> None:
    them = peft.get_peft_model(zoo.tiny("llama"), peft.IA3Config(target_modules=["o_proj"], feedforward_modules=[]))
    them.save_pretrained(tmp_path)
    with pytest.raises(Refused, match="other side"):
        load(zoo.tiny("llama"), tmp_path)
