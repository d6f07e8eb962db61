"""Portraits: what is written in a file, what is tried, and what others said."""

import pytest

import graft
from graft import catalogue
from graft.method import Method
from graft.portrait import merges, portrait
from graft.portrait.choosing import KNOWN
from graft.portrait.combining import refused

FEW = ("lora", "houlsby", "ia3", "prefix_tuning", "top_layers")


def made(name: str) -> Method:
    methods = [getattr(graft, catalogue.own()[each].class_name)() for each in name.split("+")]
    return methods[0] if len(methods) == 1 else methods[0] + methods[1]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalogue of a few methods, for every sum of two is tried."""
    monkeypatch.setattr(catalogue, "methods", lambda: {name: catalogue.own()[name] for name in FEW})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("lora", "yes"), ("ia3", "yes"), ("houlsby", "no"), ("prompt_tuning", "no"), ("bitfit", "where the model has "
        "biases"), ("top_layers", "is in the weights"), ("lora+prefix_tuning", "no"), ("random_mask", "yes"),
    ],
)  # fmt: skip
def test_merging(name: str, expected: str) -> None:
    said, why = merges(made(name))
    assert said == expected and bool(why) == (said not in ("yes", "is in the weights"))


def test_what_trains_the_base_is_in_no_sum() -> None:
    assert list(refused(graft.LoRA())) == ["top_layers"]
    others = refused(graft.TopLayers())
    assert list(others) == list(FEW[:-1])
    assert set(others.values()) == {
        "a method that trains the base's own tensors cannot be part of a sum. Attach it alone."
    }


def test_a_portrait_says_what_the_file_says() -> None:
    found = portrait(graft.LoRA(rank=16))
    assert found.formulas[0].startswith("W′ = W + s·B A")
    assert found.source == "Hu et al. 2021, arXiv 2106.09685; Kalajdzievski 2023, arXiv 2312.03732"
    rank = next(each for each in found.settings if each.name == "rank")
    assert (rank.value, rank.default, rank.said) == (16, 8, "width of the update")
    assert found.structure["module complexity"] == "O(d·rank)" and found.start == "exact" and found.merges == "yes"


@pytest.mark.parametrize(
    ("name", "complexity"),  # of table 2.4 there: a vector and stored tokens O(1), attention O(T), a bottleneck O(kd)
    [("prompt_tuning", "O(1)"), ("ia3", "O(1)"), ("tiny_attention", "O(T)"), ("houlsby", "O(d·bottleneck)")],
)
def test_complexity(name: str, complexity: str) -> None:
    assert portrait(made(name)).structure["module complexity"] == complexity


def test_every_statement_has_a_source_and_names_what_is_there() -> None:
    assert all(each.source and (each.methods or each.workspace) for each in KNOWN)
    assert {name for each in KNOWN for name in each.methods} <= catalogue.own().keys()


def test_advice_is_by_name_or_by_place() -> None:
    def tasks(name: str) -> list[str]:
        return [each.task for each in portrait(made(name)).advice]

    assert tasks("prompt_tuning") == ["tagging", "small budgets", "simple tasks"]
    assert tasks("lora") == ["question answering", "summarization and data-to-text", "complex reasoning"]
    assert tasks("pfeiffer") == ["new concepts"]


def test_a_sum_is_described_term_by_term() -> None:
    found = portrait(graft.LoRA() + graft.PrefixTuning())
    assert found.name == "lora+prefix_tuning" and found.family == "hybrid" and found.merges == "no"
    assert {"lora.rank", "prefix_tuning.tokens"} <= {each.name for each in found.settings}
    assert "2101.00190" in found.source and len({mark.kind for mark in found.marks}) == 2
