"""What is refused when it is attached: sums in which one would train in vain, virtual tokens without room for a row."""

import pytest

import cases
import zoo
from graft.anatomy.site import Site
from graft.attach import attach, grafted
from graft.errors import BadInput, NotApplied, Refused
from graft.method import Method, Part, find, zeros
from graft.methods.bi_adapter import BiAdapter
from graft.methods.embedding_prompt import EmbeddingPrompt
from graft.methods.intrinsic_subspace import IntrinsicSubspace
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning
from graft.methods.propetl import ProPETL
from graft.methods.sparse_adapter import SparseAdapter
from graft.methods.vera import VeRA


@pytest.mark.parametrize(
    ("first", "second"), [("bitfit", "ln_tuning"), ("mixout", "child_tuning"), ("houlsby", "ln_tuning")]
)
def test_two_that_train_one_parameter_are_no_sum(first: str, second: str) -> None:
    model = zoo.tiny("bert")
    settings = {"child_tuning": {"variant": "F"}}
    one, other = (find(name)(**settings.get(name, {})) for name in (first, second))
    advice = "give Houlsby train_layernorm=False" if first == "houlsby" else "sites that have nothing in common"
    with pytest.raises(Refused, match=rf"both train the (weight|bias) of encoder.*{advice}"):
        attach(model, one + other)
    assert grafted(model) is None


@pytest.mark.parametrize(
    ("first", "second", "settings"),
    [("lora", "mixout", {}), ("pissa", "mixout", {}), ("random_mask", "ln_tuning", {"sites": "norm"})],
)
def test_nor_is_one_that_undoes_what_another_did(first: str, second: str, settings: dict[str, str]) -> None:
    """What gives a parameter anew comes first, and what adds to it acts on that."""
    one, other = cases.method(first, **settings), cases.method(second)
    with pytest.raises(Refused, match="would train in vain"):
        attach(zoo.tiny("llama"), one + other)
    model = zoo.tiny("llama")
    adapter = attach(model, other + one)
    cases.move(adapter)
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())


@pytest.mark.parametrize("sites", ["attention", "ffn", "layer"])
@pytest.mark.parametrize("name", ["lora", "adalora", "vera", "child_tuning", "mixout", "pissa", "lokr", "ln_tuning"])
def test_a_place_without_a_weight_of_its_own(name: str, sites: str) -> None:
    with pytest.raises(Refused, match=r"has no \w+ of its own.*Choose sites that have one"):
        attach(zoo.tiny("llama"), cases.method(name, sites=sites))


@pytest.mark.parametrize("sites", ["ffn", "layer", "norm", "all-linear"])
@pytest.mark.parametrize("name", ["prefix_tuning", "p_tuning_v2", "hypertuning"])
def test_keys_and_values_belong_at_an_attention(name: str, sites: str) -> None:
    with pytest.raises(Refused, match="keys and values belong at an attention"):
        attach(zoo.tiny("llama"), cases.method(name, sites=sites))


@pytest.mark.parametrize("sites", ["q", "layer", "norm", "all-linear"])
@pytest.mark.parametrize("name", ["pfeiffer", "parallel_adapter", "bi_adapter"])
def test_a_residual_stream_is_around_sub_layers_alone(name: str, sites: str) -> None:
    with pytest.raises(Refused, match="reads a residual stream"):
        attach(zoo.tiny("llama"), cases.method(name, sites=sites))


@pytest.mark.parametrize("name", ["houlsby", "phm_adapter", "low_rank_adapter", "compacter", "hyperformer"])
def test_a_bottleneck_is_none_of_a_norm_s(name: str) -> None:
    with pytest.raises(BadInput, match="sites must leave norms to train_layernorm"):
        cases.method(name, sites="norm")


def test_a_part_without_a_verb() -> None:
    class Idle(Method):
        def build(self, site: Site) -> Part:
            part = Part()
            part.p = zeros(1)
            return part

        def expression(self) -> str:
            return "q"

    with pytest.raises(BadInput, match="defines none of before, after"):
        attach(zoo.tiny("llama"), Idle())


@pytest.mark.parametrize(
    "method",
    [VeRA(rank=10**9), SparseAdapter(10**9, sparsity=0.9999), BiAdapter(10**9, packed=True),
     ProPETL("prefix", hidden=10**9, packed=True)],
)  # fmt: skip
def test_what_is_drawn_and_does_not_train_has_to_fit_too(method: Method) -> None:
    with pytest.raises(Refused, match=r"bytes of tensors, and .* bytes are free"):
        attach(zoo.tiny("llama"), method)


def test_a_subspace_is_smaller_than_the_space() -> None:
    with pytest.raises(BadInput, match="2,000 dimensions are no subspace of 1,024 weights"):
        attach(zoo.tiny("llama"), IntrinsicSubspace(2000, "fastfood", sites="q @ 0"))


@pytest.mark.parametrize("name", ["opt", "bart", "bert"])
def test_virtual_tokens_of_blocks_are_no_more_than_positions(name: str) -> None:
    with pytest.raises(BadInput, match=r"65 virtual tokens at .* has 64 positions"):
        attach(zoo.tiny(name), EmbeddingPrompt(65))


@pytest.mark.parametrize("model_name", ["llama", "gpt2", "bert"])
def test_virtual_tokens_leave_room_for_a_row(model_name: str) -> None:
    model = zoo.tiny(model_name)
    for method in (PromptTuning(64), PrefixTuning(64), PromptTuning(40) + PrefixTuning(24)):
        with pytest.raises(BadInput, match="64 virtual tokens leave none of the 64 positions"):
            attach(model, method)
    attach(model, PromptTuning(40) + PrefixTuning(23))


@pytest.mark.parametrize(("name", "sites"), [("llama_adapter", "q"), ("llama_adapter", "norm"), ("bitfit", "norm")])
@pytest.mark.parametrize("task", ["lm", "classification"])
def test_a_method_that_acts_nowhere_is_refused_head_or_not(name: str, sites: str, task: str) -> None:
    model = zoo.tiny("llama", task)
    kind = find(name).__name__
    with pytest.raises(NotApplied, match=rf"{kind} does nothing at any of the \d+ sites that '{sites}"):
        attach(model, cases.method("lora") + cases.method(name, sites=sites))
    assert grafted(model) is None


@pytest.mark.parametrize(("method", "said"), [
    (find("tiny_attention")(sites="*"), "TinyAttention cannot act at .*goes with an attention"),
    (find("pfeiffer")(sites="q"), "Pfeiffer: .*which only attention and ffn have"),
    (find("pissa")(rank=40), "PiSSA: rank 40 at .*choose at most 16"),
    (find("pissa")(rank=17), "PiSSA: rank 17 at .*choose at most 16"),
    (find("low_rank_adapter")(rank=33), "Choose a rank of at most 1"),
    (cases.method("bitfit") + find("lora")(rank=99), "LoRA: rank 99"),
])  # fmt: skip
def test_what_is_refused_is_called_by_its_name_and_told_a_way_out(method: Method, said: str) -> None:
    with pytest.raises((BadInput, Refused), match=f"^{said}" if ":" in said else said):
        attach(zoo.tiny("t5"), method)
