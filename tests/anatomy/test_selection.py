"""What expressions reach in a model, what they miss, and what they refuse."""

import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import BambaConfig, DeepseekV3Config, MambaConfig, Qwen2MoeConfig

import zoo
from graft.anatomy import Anatomy, examine, select, skeleton
from graft.errors import BadInput, Refused

LINEAR = ("q", "k", "v", "o", "gate", "up", "down")


@functools.cache
def anatomy(name: str) -> Anatomy:
    changes = {"num_decoder_layers": 3} if name.endswith("t5") else {}
    return examine(skeleton(zoo.config(name, **changes)))


def reached(name: str, expression: str) -> list[str]:
    selection = select(anatomy(name), expression)
    assert not selection.missing and selection.asked == len(selection)
    return [site.name for site in selection]


def test_roles_reach_every_layer() -> None:
    assert reached("gpt2", "q v") == ["decoder.0.q", "decoder.0.v", "decoder.1.q", "decoder.1.v"]
    assert reached("bert", "attention ffn @ 1") == ["encoder.1.attention", "encoder.1.ffn"]


def test_self_and_cross_are_alike_without_a_word_before_the_colon() -> None:
    assert reached("t5", "decoder: k @ 2") == ["decoder.2.k", "decoder.2.cross.k"]
    assert reached("t5", "cross: k @ 2") == ["decoder.2.cross.k"]
    assert reached("t5", "self: k @ bottom 1") == ["encoder.0.k", "decoder.0.k"]
    assert reached("t5", "decoder cross: q; encoder: v @ top 1") == [
        "encoder.1.v", "decoder.0.cross.q", "decoder.1.cross.q", "decoder.2.cross.q",
    ]  # fmt: skip


def test_all_linear_is_every_linear_inside_the_layers() -> None:
    assert reached("llama", "all-linear @ 0") == [f"decoder.0.{role}" for role in LINEAR]
    assert "head.lm_head" not in reached("llama", "all-linear")
    # Experts kept as tensors are no linears; positions of their own (DeBERTa) are linears outside the roles.
    assert reached("mixtral", "all-linear @ 0") == [f"decoder.0.{role}" for role in "qkvo"]
    assert "encoder.0.module.attention.self.pos_key_proj" in reached("deberta_v2", "all-linear")


@pytest.mark.parametrize("name", zoo.NAMES)
def test_all_linear_misses_no_linear(name: str) -> None:
    model = skeleton(zoo.config(name))
    sites = select(examine(model), "all-linear")
    layers = tuple(f"{layer}." for stack in examine(model).stacks for layer in stack.layers)
    linears = {path for path, module in model.named_modules() if type(module).__name__.endswith(("Linear", "Conv1D"))}
    assert {site.path for site in sites} == {path for path in linears if path.startswith(layers)}


def test_places_outside_layers() -> None:
    assert reached("bert", "embed head stack") == [
        "encoder.embed", "encoder", "head.cls.predictions.transform.dense", "head.cls.predictions.decoder",
    ]  # fmt: skip
    assert reached("mixtral", "experts") == ["decoder.0.experts", "decoder.1.experts"]
    assert reached("llama", "layer @ top 1") == reached("llama", "@ top 1") == ["decoder.1.layer"]


def test_globs_paths_and_names() -> None:
    assert reached("llama", "*.self_attn.?_proj @ 0") == [f"decoder.0.{role}" for role in "qkvo"]
    assert reached("llama", "model.layers.1.mlp.up_proj decoder.0.q") == ["decoder.0.q", "decoder.1.up"]
    assert reached("opt", "*.embed_positions") == ["decoder.module.embed_positions"]
    assert reached("gpt2", "*.c_attn") == ["decoder.0.module.attn.c_attn", "decoder.1.module.attn.c_attn"]
    (site,) = select(anatomy("gpt2"), "*.c_attn @ 0")
    assert (site.role, site.inputs, site.outputs, site.transposed, site.rows) == ("module", 32, 96, True, None)


def test_what_is_asked_twice_is_reached_once() -> None:
    assert reached("llama", "v q; q @ 1, *.q_proj, decoder.0.q") == reached("llama", "q v")
    # A fused projection taken whole contains its shares.
    assert reached("gpt2", "q k *.0.attn.c_attn") == ["decoder.0.module.attn.c_attn", "decoder.1.q", "decoder.1.k"]


@given(
    st.lists(st.sampled_from([*LINEAR, "attention", "ffn", "norm", "layer"]), min_size=1, max_size=4),
    st.sampled_from(["", "encoder: ", "decoder: ", "cross: ", "self: "]),
    st.sampled_from(["", " @ top 1", " @ bottom 2", " @ 0-1", " @ 1"]),
)
def test_selection_equals_a_plain_filter(roles: list[str], where: str, layers: str) -> None:
    found = anatomy("flan_t5")
    chosen = {"": None, " @ bottom 2": {0, 1}, " @ 0-1": {0, 1}, " @ 1": {1}}
    heights = {stack.name: len(stack.layers) for stack in found.stacks}
    wanted = []
    for site in found.sites:
        top = {heights[site.stack] - 1} if site.layer is not None else set()
        inside = chosen.get(layers, top)
        if (
            site.role in roles
            and (inside is None or site.layer in inside)
            and where in ("", "self: ", "cross: ", f"{site.stack}: ")
            and (where not in ("self: ", "cross: ") or site.role in ("q", "k", "v", "o", "attention"))
            and (where not in ("self: ", "cross: ") or site.cross == (where == "cross: "))
        ):
            wanted.append(site)
    if where in ("self: ", "cross: ") and not set(roles) <= {"q", "k", "v", "o", "attention"}:
        with pytest.raises(BadInput, match="attention of"):
            select(found, f"{where}{' '.join(roles)}{layers}")
    else:
        assert list(select(found, f"{where}{' '.join(roles)}{layers}")) == wanted


@pytest.mark.parametrize(
    ("name", "expression", "at", "says"),
    [
        ("llama", "q vv", 2, "unknown word 'vv'"),
        ("llama", "all_linear", 0, "Did you mean 'all-linear'?"),
        ("bert", "q gate", 2, "there is no 'gate' in this model"),
        ("bert", "decoder: q", 0, "there is no stack 'decoder'"),
        ("bert", "cross: q", 7, "there is no 'q' in the cross-attention of this model"),
        ("t5", "encoder cross: k", 15, "there is no 'k' in the cross-attention of encoder"),
        ("t5", "q @ 2", 2, "encoder has no such layers"),
        ("llama", "q @ top 3", 2, "decoder has 2 layers, 0-1"),
        ("llama", "embed @ 0", 0, "'embed' is in no layer"),
        ("llama", "*.mixer.*", 0, "no linear, embedding or norm matches"),
        ("llama", "model.layers.0.mlp", 0, "is a LlamaMLP"),
        ("llama", "model.norm @ 0", 0, "in none of these layers"),
    ],
)
def test_what_a_model_does_not_have_is_marked_and_answered(name: str, expression: str, at: int, says: str) -> None:
    with pytest.raises(BadInput) as error:
        select(anatomy(name), expression)
    message = str(error.value)
    assert says in message
    assert message.split("\n")[1:3] == [f"    {expression}", f"    {' ' * at}^"]


def test_an_unknown_word_shows_roles_and_folded_tree() -> None:
    with pytest.raises(BadInput) as error:
        select(anatomy("llama"), "attn")
    message = str(error.value)
    assert "Roles of this model: q k v o gate up down attention ffn layer embed norm head stack" in message
    assert "0-1 ×2: LlamaDecoderLayer" in message and "q_proj: Linear (weight 32×32)" in message


def test_layers_that_share_a_module_are_not_chosen_among() -> None:
    assert reached("albert", "q v") == ["encoder.0.q", "encoder.0.v"]
    assert [site.repeats for site in select(anatomy("albert"), "q")] == [3]
    with pytest.raises(Refused, match="one module that runs 3 times"):
        select(anatomy("albert"), "q @ top 1")


def test_a_role_that_some_layers_lack_is_reported() -> None:
    settings = BambaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, attn_layer_indices=[2], mamba_n_heads=4, mamba_d_head=16, mamba_n_groups=1,
        mamba_d_state=8, architectures=["BambaForCausalLM"],
    )  # fmt: skip
    found = examine(skeleton(settings))
    selection = select(found, "q down")
    assert {site.name for site in selection} == {"decoder.2.q", *(f"decoder.{i}.down" for i in range(4))}
    (missing,) = selection.missing
    assert (missing.stack, missing.asked, missing.layers) == ("decoder", (0, 1, 2, 3), (0, 1, 3))
    assert selection.asked == 8
    said = str(missing)
    assert "missing in 0-1 3" in said and "write 'q' @ 2" in said.replace('"', "'") and "BambaMixer" in said
    assert not select(found, "q @ 2").missing
    assert not select(found, "q @ 0").sites and select(found, "q @ 0").missing
    # Linears outside the roles count as linears: nothing is missing.
    everything = select(found, "all-linear")
    assert not everything.missing
    assert "decoder.0.module.mamba.in_proj" in [site.name for site in everything]


def test_a_recurrent_model_is_reached_by_globs() -> None:
    settings = MambaConfig(vocab_size=32, hidden_size=16, num_hidden_layers=3, architectures=["MambaForCausalLM"])
    found = examine(skeleton(settings))
    assert [stack.name for stack in found.stacks] == ["decoder"] and len(found.stacks[0].layers) == 3
    assert [site.name for site in select(found, "*.mixer.in_proj @ top 2")] == [
        "decoder.1.module.mixer.in_proj",
        "decoder.2.module.mixer.in_proj",
    ]
    with pytest.raises(BadInput, match="in_proj: Linear"):
        select(found, "q v")


def test_latent_attention_has_the_projections_it_has() -> None:
    settings = DeepseekV3Config(
        vocab_size=32, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, first_k_dense_replace=1, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=4,
        qk_nope_head_dim=4, v_head_dim=8, architectures=["DeepseekV3ForCausalLM"],
    )  # fmt: skip
    found = examine(skeleton(settings))
    assert [site.name for site in select(found, "q o @ 0")] == ["decoder.0.q", "decoder.0.o"]
    (attention,) = select(found, "attention @ 0")
    assert attention.entry == "model.layers.0.self_attn.q_a_proj"
    assert [each.layers for each in select(found, "experts").missing] == [(0,)]
    names = [site.name for site in select(found, "gate ffn @ 1")]
    assert names == ["decoder.1.ffn", "decoder.1.gate", "decoder.1.mlp.shared_experts.gate"]


def test_shared_experts_stand_beside_the_routed_ones() -> None:
    settings = Qwen2MoeConfig(
        vocab_size=32, hidden_size=32, intermediate_size=48, moe_intermediate_size=16, num_hidden_layers=1,
        shared_expert_intermediate_size=24, num_attention_heads=4, num_key_value_heads=2, num_experts=4,
        architectures=["Qwen2MoeForCausalLM"],
    )  # fmt: skip
    found = examine(skeleton(settings))
    routed, shared = select(found, "up")
    assert {routed.name, shared.name} == {"decoder.0.up", "decoder.0.mlp.shared_expert.up"}
    assert "decoder.0.mlp.shared_expert.up" in [site.name for site in select(found, "all-linear")]
    assert not any("gate" in site.path.rpartition(".")[2] and site.outputs == 1 for site in select(found, "all-linear"))


class Block(nn.Module):
    """A layer with names of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.Module()
        for name in ("query", "key", "value", "proj"):
            self.attend.add_module(name, nn.Linear(8, 8))
        self.inner, self.outer = nn.Linear(8, 12), nn.Linear(12, 8)


def test_a_model_outside_transformers_works_by_structure_and_globs() -> None:
    model = nn.Module()
    model.words, model.blocks = nn.Embedding(20, 8), nn.ModuleList([Block(), Block()])
    found = examine(model)
    assert [(stack.path, stack.layers, stack.width) for stack in found.stacks] == [("", ("blocks.0", "blocks.1"), 8)]
    assert [site.name for site in select(found, "q o @ 1")] == ["encoder.1.q", "encoder.1.o"]
    assert [site.name for site in select(found, "*.inner")] == ["encoder.0.module.inner", "encoder.1.module.inner"]
    assert [site.name for site in select(found, "words")] == ["module.words"]


def test_one_module_in_several_places_is_one_layer() -> None:
    block, model = Block(), nn.Module()
    model.blocks = nn.ModuleList([block, block, block])
    (stack,) = examine(model).stacks
    assert (stack.layers, stack.repeats) == (("blocks.0",), 3)


def test_a_model_without_layers_shows_its_tree() -> None:
    found = examine(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    assert [site.path for site in select(found, "0 2")] == ["0", "2"]
    with pytest.raises(BadInput, match="0: Linear"):
        select(found, "q")
