"""Formulas of what trains: those of the papers, and true for a model that no fit has seen."""

from dataclasses import replace

import pytest

import graft
from graft.anatomy import skeleton
from graft.method import Method, named
from graft.portrait import costs, formula
from graft.portrait.counting import growth

# Per layer, with two norms where they train, and a last one: the formulas of the papers for a decoder without biases.
PAPERS = {
    "lora": "4·L·d·rank", "dora": "2·L·d·(2·rank + 1)", "pfeiffer": "L·(2·d·bottleneck + d + bottleneck)",
    "houlsby": "4·L·d·bottleneck + 4·L·d + 2·L·bottleneck + d", "ia3": "L·(2·d + f)", "prompt_tuning": "d·tokens",
    "prefix_tuning": "2·L·d·tokens", "vera": "2·L·(d + rank)", "oft": "L·d·(block − 1)", "ln_tuning": "d·(2·L + 1)",
    "random_mask": "L·d·(0.02·d + 0.015·f)", "fourier_ft": "2·L·frequencies",
}  # fmt: skip


@pytest.mark.parametrize("name", PAPERS)
def test_formulas_are_those_of_the_papers(name: str) -> None:
    assert formula(named(name)) == PAPERS[name]


@pytest.mark.parametrize("method", [graft.LoRA(rank=3), graft.MAM(), graft.LadderSide(drop=()), graft.TinyAttention()])
def test_a_formula_gives_the_count_of_another_model(method: Method) -> None:
    from transformers import LlamaConfig

    model = skeleton(LlamaConfig(vocab_size=50, hidden_size=96, intermediate_size=160, num_hidden_layers=5,
                                 num_attention_heads=6, architectures=["LlamaForCausalLM"]))  # fmt: skip
    sizes = {size: getattr(method, size) for size in method.sizes()}
    spelled = formula(method).replace("·", "*").replace("−", "-").replace("d²", "d**2")
    assert eval(spelled, {"L": 5, "d": 96, "f": 160, "H": 6, **sizes}) == costs(method, model).trainable


def test_what_is_no_polynomial_has_no_formula() -> None:
    assert formula(graft.LoKr()) == formula(graft.TopLayers()) == ""
    assert formula(replace(graft.LLaMAAdapter(), layers=30)) == ""  # in 40 layers it is in 30 of them


def test_a_sum_trains_the_sum() -> None:
    assert formula(graft.LoRA(rank=8) + graft.PrefixTuning(tokens=20)) == "72·L·d"


@pytest.mark.parametrize(("name", "expected"), [("lora", "d·rank"), ("houlsby", "d·bottleneck"), ("mixout", "d²")])
def test_growth(name: str, expected: str) -> None:
    assert growth(named(name)) == expected
