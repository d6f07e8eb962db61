"""The structure found by trying is that of table 2 of Sabry & Belz 2023 (arXiv 2304.12410), row by row."""

import pytest
import torch

from graft.attach import grafted
from graft.method import named
from graft.portrait.models import running
from graft.portrait.portrait import drawn, example, properties
from graft.portrait.structure import structure

NAMES = ("intra-connectivity", "inter-connectivity", "parameters adapted", "parameter sharing", "input type",
         "insertion form", "insertions", "integration form", "workspace")  # fmt: skip
# Their words; what reads other tokens is one kind here, of which self-attention is one, and a block is its layer.
PUBLISHED = {
    "prompt_tuning": "dense: embedding | fixed: dense | addition | none | weights | parallel | 1 layer | concatenation "
                     "| embedding layer",
    "lora": "dense: linear MLP | fixed: dense | reparameterization | none | data | parallel | all layers "
            "| scaled addition | attention: queries, values",
    "houlsby": "dense: non-linear MLP | fixed: dense | addition | none | hidden | sequential | all layers "
               "| direct addition | attention; FFN",
    "tiny_attention": "dense: across tokens | dynamic | addition | none | hidden | sequential | all layers "
                      "| direct addition | attention",
    "compacter": "dense: non-linear MLP | fixed: dense | addition | shared | hidden | sequential | all layers "
                 "| direct addition | attention; FFN",
    "ia3": "none: parameter vector | fixed: dense | addition | none | weights | sequential | all layers | rescaling "
           "| attention: keys, values; FFN: intermediate representation",
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLISHED)
def test_it_is_the_published_one(name: str) -> None:
    assert structure(named(name)) == dict(zip(NAMES, PUBLISHED[name].split(" | "), strict=True))


def test_a_prefix_is_a_network_only_while_it_is_computed() -> None:
    flat, made = (
        structure(named("prefix_tuning", {"prefix_tuning": {"reparameterize": each}})) for each in (False, True)
    )
    assert flat.pop("intra-connectivity") == "dense: embedding"
    assert made.pop("intra-connectivity") == "dense: non-linear MLP"  # as they have it
    assert made.pop("parameter sharing") == "shared" and flat.pop("parameter sharing") == "none"
    assert flat == made and flat["integration form"] == "gated addition" and flat["insertion form"] == "parallel"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bitfit", {"insertion form": "in place", "parameters adapted": "selection", "input type": "weights"}),
        ("parallel_adapter", {"insertion form": "parallel", "integration form": "scaled addition"}),
        ("oft", {"insertion form": "sequential", "integration form": "multiplication"}),
        ("random_mask", {"inter-connectivity": "fixed: sparse", "integration form": "new values"}),
        ("side_tuning", {"insertion form": "parallel", "intra-connectivity": "dense: network of its own"}),
        ("weighted_sum", {"intra-connectivity": "none: parameter vector"}),
        (
            "ladder_side",
            {"insertions": "1 layer, which reads all layers", "intra-connectivity": "dense: network of its own"},
        ),
        ("top_layers", {"insertions": "2 of 8 layers", "insertion form": "in place"}),
        ("lora+prompt_tuning", {"insertion form": "parallel", "integration form": "scaled addition; concatenation"}),
    ],
)
def test_others(name: str, expected: dict[str, str]) -> None:
    found = structure(named(name))
    assert {key: found[key] for key in expected} == expected


def test_trying_leaves_nothing_behind() -> None:
    state = torch.get_rng_state()
    structure(named("lora"))
    assert grafted(running()) is None and torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("name", ["adapter_fusion", "parallel", "plug_in"])
def test_what_is_made_of_others_is_shown_with_some(name: str) -> None:
    shown = example(named(name))
    assert drawn(shown) and len(properties(shown)) == 10 and properties(shown)["workspace"] == "FFN"
    assert example(shown) == shown
