"""Contestants: names, settings, sweeps, and what is no contestant."""

import pytest

import graft
from graft.errors import BadInput
from graft.tournament.contestant import assembled


def test_names_and_settings_become_ways() -> None:
    found = assembled(
        ["majority", "full", "big=lora+bitfit"], {"big": {"lora.rank": (4,), "lora.sites": ("q k",)}, "full": {}}
    )
    assert [each.name for each in found] == ["majority", "full", "big"]
    assert found[1].way == graft.TopLayers(k="all")
    assert found[2].way == graft.LoRA(rank=4, sites="q k") + graft.BitFit()


def test_several_values_make_a_contestant_of_every_combination() -> None:
    found = assembled(["lora"], {"lora": {"rank": (1, 2), "sites": ("q", "q v"), "lr": (0.01,)}})
    assert [each.name for each in found] == [
        "lora rank=1 sites=q", "lora rank=1 sites=q v", "lora rank=2 sites=q", "lora rank=2 sites=q v"
    ]  # fmt: skip
    assert all(each.of == "lora" and each.rate == 0.01 for each in found)
    assert found[2].way == graft.LoRA(rank=2, sites="q") and dict(found[2].at) == {"rank": 2, "sites": "q"}


def test_one_value_needs_no_list() -> None:
    (found,) = assembled(["lora"], {"lora": {"sites": "q v", "rank": 2}})
    assert found.way == graft.LoRA(rank=2, sites="q v") and found.name == "lora"


def test_two_names_for_one_way_are_the_same() -> None:
    one, other = assembled(["lora", "again=lora"], {})
    assert one.name != other.name and one.as_json() == other.as_json()


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (["lorra"], {}, "no contestant is called 'lorra'.*lora"),
        (["majorty"], {}, "no contestant is called 'majorty'. Did you mean 'majority'"),
        (["lora", "lora"], {}, "two contestants are called 'lora'"),
        (["Big One=lora"], {}, "lower-case"),
        (["mix=lora+majority"], {}, "majority cannot be part of a sum"),
        (["lora"], {"lora": {"rnk": (1,)}}, "lora has no setting rnk; it has: rank"),
        (["lora"], {"full": {"k": (1,)}}, "no contestant 'full' to set k of"),
        (["lora"], {"lora": {"rank": (0,)}}, "rank"),
        (["lora"], {"lora": {"rank": ()}}, "lora.rank has no value"),
        (["lora"], {"lora": {"rank": (4, 8, 4)}}, "lora.rank has one value twice"),
        (["lora"], {"lora": {"lr": (float("nan"),)}}, "lora.lr must be a finite number above 0, got nan"),
        (["lora"], {"lora": {"lr": (-1.0, "fast")}}, "got -1.0; lora.lr must be .* got fast"),
    ],
)
def test_what_is_no_contestant_is_refused(words: list[str], settings: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        assembled(words, settings)
