"""What `examine` finds in every architecture, against hand-written tables and against the models' own forward."""

from collections import defaultdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModel, GteConfig, MegatronBertConfig, MptConfig, RobertaPreLayerNormConfig

import zoo
from graft.anatomy import Anatomy, Heads, Site, examine, skeleton

BERT = ("attention.self.query attention.self.key attention.self.value attention.output.dense "
        "- intermediate.dense output.dense")  # fmt: skip
LLAMA = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj mlp.gate_proj mlp.up_proj mlp.down_proj"
BART = "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.out_proj - fc1 fc2"
FUSED = "{0}.{1} {0}.{1} {0}.{1} {0}.{2} - mlp.dense_h_to_4h mlp.dense_4h_to_h"
EXPERTS = " ".join(["self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.o_proj", *["mlp.experts"] * 3])
T5 = "{0}.q {0}.k {0}.v {0}.o".format("layer.0.SelfAttention")

# For the last stack: where it stands, its first layer, and q k v o gate up down in that layer ("-": it has none).
PLACES: dict[str, tuple[str, str, str]] = {
    "bert": ("bert", "encoder.layer.0", BERT),
    "roberta": ("roberta", "encoder.layer.0", BERT),
    "distilbert": ("distilbert", "transformer.layer.0",
                   "attention.q_lin attention.k_lin attention.v_lin attention.out_lin - ffn.lin1 ffn.lin2"),
    "electra": ("electra", "encoder.layer.0", BERT),
    "albert": ("albert", "encoder.albert_layer_groups.0.albert_layers.0",
               "attention.query attention.key attention.value attention.dense - ffn ffn_output"),
    "deberta_v2": ("deberta", "encoder.layer.0", BERT.replace("query", "query_proj").replace("key", "key_proj")
                   .replace("value", "value_proj").replace("proj_proj", "proj")),
    "modernbert": ("model", "layers.0", "attn.Wqkv attn.Wqkv attn.Wqkv attn.Wo mlp.Wi mlp.Wi mlp.Wo"),
    "gpt2": ("transformer", "h.0", "attn.c_attn attn.c_attn attn.c_attn attn.c_proj - mlp.c_fc mlp.c_proj"),
    "gpt_neox": ("gpt_neox", "layers.0", FUSED.format("attention", "query_key_value", "dense")),
    "opt": ("model.decoder", "layers.0", BART),
    "bloom": ("transformer", "h.0", FUSED.format("self_attention", "query_key_value", "dense")),
    "falcon": ("transformer", "h.0", FUSED.format("self_attention", "query_key_value", "dense")),
    "falcon_multi_query": ("transformer", "h.0", FUSED.format("self_attention", "query_key_value", "dense")),
    "falcon_multi_head": ("transformer", "h.0", FUSED.format("self_attention", "query_key_value", "dense")),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "olmo2"), ("model", "layers.0", LLAMA)),
    "phi3": ("model", "layers.0", "self_attn.qkv_proj self_attn.qkv_proj self_attn.qkv_proj self_attn.o_proj "
                                  "mlp.gate_up_proj mlp.gate_up_proj mlp.down_proj"),
    **dict.fromkeys(("mixtral", "qwen3_moe", "gpt_oss"), ("model", "layers.0", EXPERTS)),
    "t5": ("decoder", "block.0", f"{T5} - layer.2.DenseReluDense.wi layer.2.DenseReluDense.wo"),
    "flan_t5": ("decoder", "block.0",
                f"{T5} layer.2.DenseReluDense.wi_0 layer.2.DenseReluDense.wi_1 layer.2.DenseReluDense.wo"),
    "bart": ("model.decoder", "layers.0", BART),
    "pegasus": ("model.decoder", "layers.0", BART),
    "vit": ("vit", "layers.0",
            "attention.q_proj attention.k_proj attention.v_proj attention.o_proj - mlp.fc1 mlp.fc2"),
    "whisper": ("model.decoder", "layers.0", BART),
    "wav2vec2": ("wav2vec2", "encoder.layers.0",
                 "attention.q_proj attention.k_proj attention.v_proj attention.out_proj "
                 "- feed_forward.intermediate_dense feed_forward.output_dense"),
}  # fmt: skip
SEQ2SEQ = ("t5", "flan_t5", "bart", "pegasus", "whisper")
CAUSAL = ("gpt2", "gpt_neox", "opt", "bloom", "falcon", "falcon_multi_query", "falcon_multi_head", "llama", "mistral",
          "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "olmo2", "mixtral", "qwen3_moe", "gpt_oss",
          *SEQ2SEQ)  # fmt: skip
KEY_HEADS = {"falcon_multi_query": 1, "falcon": 2} | dict.fromkeys(CAUSAL[CAUSAL.index("llama") : -len(SEQ2SEQ)], 2)
HEADS = {
    "bert": "cls", "roberta": "lm_head", "distilbert": "vocab_projector", "electra": "generator_lm_head",
    "albert": "predictions", "deberta_v2": "cls", "modernbert": "decoder", "vit": "classifier", "whisper": "proj_out",
}  # fmt: skip


def layer_sites(anatomy: Anatomy, layer: int = 0) -> dict[str, Site]:
    stack = anatomy.stacks[-1].name
    return {
        s.role: s for s in anatomy.sites if s.stack == stack and s.layer == layer and not s.cross and s.role != "norm"
    }


@pytest.mark.parametrize("name", zoo.NAMES)
def test_projections_are_where_the_architecture_has_them(name: str) -> None:
    model = zoo.tiny(name)
    anatomy = examine(model)
    path, layer, places = PLACES[name]
    stack = anatomy.stacks[-1]
    found = layer_sites(anatomy)
    assert stack.path == path and stack.layers[0] == f"{path}.{layer}" == found["layer"].path
    wanted = dict(zip(("q", "k", "v", "o", "gate", "up", "down"), places.split(), strict=True))
    seen = {role: found[role].path.removeprefix(f"{path}.{layer}.") if role in found else "-" for role in wanted}
    assert seen == wanted
    assert found["attention"].heads == Heads(4, KEY_HEADS.get(name, 4), 8)
    for site in anatomy.sites:
        bound = site.bind(model)
        if site.role in wanted:
            assert bound.weight.shape == (*site.batch, site.outputs, site.inputs)
            assert bound.bias is None or bound.bias.shape == (*site.batch, site.outputs)
    experts = name in ("mixtral", "qwen3_moe", "gpt_oss")
    assert ("experts" in found) == experts
    assert found["up"].inputs == found["down"].outputs == 32


@pytest.mark.parametrize("name", zoo.NAMES)
def test_stacks(name: str) -> None:
    anatomy = examine(zoo.tiny(name))
    names = ["encoder", "decoder"] if name in SEQ2SEQ else ["decoder"] if name in CAUSAL else ["encoder"]
    assert [stack.name for stack in anatomy.stacks] == names
    assert [stack.causal for stack in anatomy.stacks] == [each == "decoder" for each in names]
    assert anatomy.causal == (name in CAUSAL)
    settings = zoo.config(name)
    for stack in anatomy.stacks:
        layers = getattr(settings, f"num_{stack.name}_layers", None) or settings.num_hidden_layers
        assert len(stack.layers) * stack.repeats == layers
        assert stack.width == 32
        assert stack.embed_width == (0 if stack.embed is None else 16 if name in ("electra", "albert") else 32)
        assert (stack.embed is None) == (name in ("vit", "wav2vec2") or (name, stack.name) == ("whisper", "encoder"))
    assert {site.stack for site in anatomy.sites if site.cross} == ({"decoder"} if name in SEQ2SEQ else set())
    assert anatomy.head == HEADS.get(name, "lm_head")
    assert {site.repeats for site in anatomy.sites if site.layer is not None} == {3 if name == "albert" else 1}


@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_trunk_gives_the_last_hidden_state(name: str) -> None:
    model = zoo.tiny(name, "base")
    anatomy = examine(model)
    trunk = model.get_submodule(anatomy.stacks[-1].trunk)
    given: list[Any] = []
    trunk.register_forward_hook(lambda _, inputs, output: given.append(output[0]))
    with torch.no_grad():
        output = model(**zoo.batch(model))
    assert torch.equal(given[0], output.last_hidden_state)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_names_do_not_depend_on_the_wrapping_class(name: str) -> None:
    names: list[dict[str, list[tuple[str, int, int]]]] = []
    for task in zoo.TASKS:
        try:
            anatomy = examine(zoo.tiny(name, task))
        except LookupError:  # transformers has no such class
            continue
        names.append({stack.name: [] for stack in anatomy.stacks})
        for site in (site for site in anatomy.sites if site.role != "head"):
            names[-1][site.stack].append((site.name, site.inputs, site.outputs))
        assert len({site.name for site in anatomy.sites}) == len(anatomy.sites)
        assert (anatomy.head is None) == (task == "base")
    assert len(names) >= 2 and all(names[0].values())
    assert all(each[stack] == names[0][stack] for each in names for stack in each)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_a_skeleton_has_the_same_anatomy(name: str) -> None:
    model = skeleton(zoo.config(name))
    assert all(parameter.is_meta for parameter in model.parameters())
    assert examine(model) == examine(zoo.tiny(name))


def watch(model: nn.Module, anatomy: Anatomy) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What enters and what leaves each module that stands around a sub-layer, filled by the next forward."""
    entering: dict[str, Tensor] = {}
    leaving: dict[str, Tensor] = {}

    def first(values: Any) -> Tensor:
        return values[0] if isinstance(values, tuple) else values

    def keep(path: str) -> None:
        def hook(_: nn.Module, inputs: Any, keywords: dict[str, Tensor], output: Any) -> None:
            # Copies: some models add to these in place later (Falcon), some fold rows and tokens together (OPT).
            entering[path] = (inputs[0] if inputs else keywords["hidden_states"]).clone()
            leaving[path] = first(output).clone()

        model.get_submodule(path).register_forward_hook(hook, with_kwargs=True)

    around = {p for s in anatomy.sites for p in (s.entry, s.exit, s.residual, s.norm) if p}
    for path in around | {site.path for site in anatomy.sites if site.role == "layer"}:
        keep(path)
    return entering, leaving


PARALLEL = ("gpt_neox", "falcon", "falcon_multi_query")
ON_BRANCH = ("gemma2", "gemma3", "olmo2")
POST_NORM = ("bert", "roberta", "distilbert", "electra", "albert", "deberta_v2", "bart", "wav2vec2")


@pytest.mark.parametrize("name", zoo.NAMES)
def test_residual_and_norm_stand_where_the_sum_is_made(name: str) -> None:
    model = zoo.tiny(name)
    anatomy = examine(model)
    entering, leaving = watch(model, anatomy)
    with torch.no_grad():
        model(**zoo.batch(model))
    layers: dict[tuple[str, int | None], list[Site]] = defaultdict(list)
    for site in anatomy.sites:
        if site.role in ("attention", "ffn"):
            layers[site.stack, site.layer].append(site)
    for site in (site for site in anatomy.sites if site.role == "layer"):
        inner = layers[site.stack, site.layer]
        assert len(inner) == (3 if site.stack == "decoder" and name in SEQ2SEQ else 2)
        check_layer(name, entering[site.path], leaving[site.path], inner, entering, leaving)


def check_layer(
    name: str, x: Tensor, y: Tensor, inner: list[Site], entering: dict[str, Tensor], leaving: dict[str, Tensor]
) -> None:
    stream = x
    for sub in inner:
        assert sub.residual and sub.entry and sub.exit
        assert (sub.norm is not None) == (name in POST_NORM)
        if name in ON_BRANCH:
            continue  # what is added is the norm of what leaves
        close(entering[sub.residual].view_as(stream), x if name in PARALLEL else stream)
        added = leaving[sub.exit].view_as(stream)
        if sub.norm is not None:
            assert sub.residual == sub.entry
            close(entering[sub.norm], stream + added)
            stream = leaving[sub.norm]
        else:
            stream = stream + added
    if name not in ON_BRANCH:
        close(y, stream)
    else:
        assert all((sub.residual == sub.entry) == (name == "olmo2") for sub in inner)
        close(entering[inner[0].residual or ""], x)


ROWS = {"vocab_size": 32, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
# Other ways to place norms: own children beside the linears, on the output, and both ways of one architecture.
OTHERS = {
    "mpt": lambda: (MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=32, max_seq_len=16), False),
    "gte": lambda: (GteConfig(**ROWS), True),
    "roberta_prelayernorm": lambda: (RobertaPreLayerNormConfig(**ROWS), False),
    "megatron_bert": lambda: (MegatronBertConfig(**ROWS), False),
    "opt_post_norm": lambda: (zoo.config("opt", do_layer_norm_before=False), True),
    "wav2vec2_pre_norm": lambda: (zoo.config("wav2vec2", do_stable_layer_norm=True), False),
}


@pytest.mark.parametrize("name", OTHERS)
def test_residual_and_norm_in_other_architectures(name: str) -> None:
    settings, after = OTHERS[name]()
    model = AutoModel.from_config(settings).eval()
    anatomy = examine(model)
    entering, leaving = watch(model, anatomy)
    with torch.no_grad():
        model(torch.randn(1, 400) if name.startswith("wav2vec2") else torch.arange(6).view(1, 6))
    for layer in range(2):
        (whole,) = (site for site in anatomy.sites if site.role == "layer" and site.layer == layer)
        inner = [s for role in ("attention", "ffn") for s in anatomy.sites if (s.role, s.layer) == (role, layer)]
        check_layer("bert" if after else "llama", entering[whole.path], leaving[whole.path], inner, entering, leaving)


def close(seen: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(seen, wanted, atol=2e-5, rtol=1e-4)


def test_tied_parameters_are_grouped() -> None:
    assert examine(zoo.tiny("gpt2")).tied == (("transformer.wte.weight", "lm_head.weight"),)
    assert examine(zoo.tiny("llama")).tied == ()
    (group,) = examine(zoo.tiny("bart")).tied
    assert len(group) == 4 and "lm_head.weight" in group


def test_the_head_has_every_module_of_the_task() -> None:
    anatomy = examine(zoo.tiny("distilbert", "classification"))
    assert anatomy.head_paths == ("pre_classifier", "classifier") and anatomy.head == "classifier"
    assert [site.name for site in anatomy.sites if site.role == "head"] == ["head.pre_classifier", "head.classifier"]
    assert examine(zoo.tiny("roberta", "classification")).head == "classifier"
    assert examine(zoo.tiny("llama", "classification")).head == "score"
    assert examine(zoo.tiny("bert", "answers")).head == "qa_outputs"


def test_norms_include_those_of_the_embedding_and_the_end() -> None:
    names = [site.name for site in examine(zoo.tiny("bert")).sites if site.role == "norm"]
    assert names == [
        "encoder.norm.embeddings",
        *(f"encoder.{i}.norm.{sub}.LayerNorm" for i in range(2) for sub in ("attention.output", "output")),
    ]
    names = [site.name for site in examine(zoo.tiny("qwen3")).sites if site.role == "norm"]
    assert "decoder.norm.norm" in names and "decoder.1.norm.self_attn.k_norm" in names and len(names) == 9
