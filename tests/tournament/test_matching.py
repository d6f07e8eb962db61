"""Contestants of one size: budgets, counts by the live tensors, the largest size that fits, what stays as it is."""

import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import cases
import zoo
from graft.attach import attach, detach, grafted
from graft.errors import BadInput
from graft.method import Method
from graft.methods.bitfit import BitFit
from graft.methods.houlsby import Houlsby
from graft.methods.hra import HRA
from graft.methods.ladder_side import LadderSide
from graft.methods.lokr import LoKr
from graft.methods.lora import LoRA
from graft.methods.mam import MAM
from graft.methods.oft import OFT
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning
from graft.methods.random_mask import RandomMask
from graft.methods.top_layers import TopLayers
from graft.tournament import entrants
from graft.tournament.contestant import Contestant, assembled
from graft.tournament.matching import budget, matched, resized


def trainable(model: nn.Module, method: Method) -> int:
    adapter = attach(model, method)
    counts = adapter.counts
    detach(model)
    return counts.trainable + counts.head


@pytest.mark.parametrize(
    ("text", "kind", "most", "share"),
    [("trainable=0.5%", "trainable", 0.005, True), ("trainable=100000", "trainable", 1e5, False),
     ("trainable = 100,000", "trainable", 1e5, False), ("TRAINABLE=1.5M", "trainable", 1.5e6, False),
     ("trainable=20k", "trainable", 2e4, False), ("trainable=1e5", "trainable", 1e5, False),
     ("memory=2GB", "memory", 2e9, False), ("memory=1.5 GiB", "memory", 1.5 * 2**30, False),
     ("memory=500 mb", "memory", 5e8, False), ("memory=100b", "memory", 100, False)],
)  # fmt: skip
def test_a_budget_is_read(text: str, kind: str, most: float, share: bool) -> None:
    found = budget(text)
    assert (found.kind, found.share) == (kind, share) and found.most == pytest.approx(most)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "neither trainable=… nor memory"), ("0.5%", "neither"), ("trainable", "neither"), ("trainable=", "no number"),
     ("trainables=5", "Did you mean trainable="), ("memroy=2GB", "Did you mean memory="), ("trainable=-5", "no number"),
     ("trainable=0", "no amount above 0"), ("trainable=0%", "above 0 and up to 100 %"), ("trainable=101%", "up to 100"),
     ("trainable=5GB", "no unit 'gb'"), ("memory=2", "a unit is missing"), ("memory=5%", "no unit '%'"),
     ("memory=nan GB", "no number"), ("trainable=1e999", "no amount"), ("trainable=5=6", "no number")],
)  # fmt: skip
def test_what_is_no_budget_is_told(text: str, said: str) -> None:
    with pytest.raises(BadInput, match=re.escape(said)):
        budget(text)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        assert budget(text).most > 0
    except BadInput as error:
        assert "match" in str(error)


GROWING = {
    "lora": ("rank", LoRA()), "houlsby": ("bottleneck", Houlsby()), "prefix": ("tokens", PrefixTuning()),
    "prompt": ("tokens", PromptTuning()), "words": ("tokens", PromptTuning(init="text", text="one two")),
}  # fmt: skip


@pytest.mark.parametrize("which", GROWING)
@pytest.mark.parametrize("on", ["llama", "bert"])
def test_the_largest_size_that_fits(on: str, which: str) -> None:
    model = zoo.tiny(on, "classification")
    field, method = GROWING[which]
    (found,), (note,) = matched([Contestant(which, method)], "trainable=1500", model)
    size = getattr(found.way, field)
    assert isinstance(found.way, Method)

    def count(size: int) -> int:
        return trainable(model, resized(resized(method, size), size)) if which != "words" else size * 32 + head

    head = trainable(model, TopLayers(0))
    reached = count(size)
    if reached > 1500:
        assert size == 1 and "above 1,500" in note
    else:
        full = which == "lora" and size == 16  # a low-rank update has room for no more at llama's narrow values
        assert full or count(size + 1) > 1500
    assert f"{field} {size} instead of" in note and f"{reached:,} trainable" in note


def test_sizes_of_which_only_some_are_possible_and_sizes_that_end_to_cost_more() -> None:
    given_ = [Contestant("hra", HRA()), Contestant("oft", OFT()), Contestant("lokr", LoKr())]
    (hra, oft, lokr), _ = matched(given_, "trainable=1500", MODEL)
    assert hra.way.rank == 10  # 4 · 32 for each of an even number of reflections  # type: ignore[union-attr]
    assert oft.way.block == 16  # 64 · (block - 1), of a divisor of 32  # type: ignore[union-attr]
    assert lokr.way.rank == 4  # its larger factor, 8 by 8, is then full  # type: ignore[union-attr]


@settings(max_examples=15)
@given(st.integers(1, 40_000))
def test_lora_is_within_any_budget_or_at_its_smallest(most: int) -> None:
    (found,), _ = matched([Contestant("lora", LoRA())], f"trainable={most}", MODEL)
    each = 2 * 2 * (32 + 32)  # two sites in two layers
    assert found.way.rank == min(max((most - HEAD) // each, 1), 32)  # type: ignore[union-attr]


MODEL = zoo.tiny("bert", "classification")
HEAD = 32 * 2 + 2


def test_a_share_is_of_the_base_and_blocks_and_divisors_are_sizes_too() -> None:
    model = zoo.tiny("bert", "classification", num_hidden_layers=4)
    total = sum(p.numel() for p in model.parameters())
    block = sum(p.numel() for p in model.bert.encoder.layer[0].parameters())
    share = 100 * (2 * block + HEAD + 5) / total
    given_ = [Contestant("top", TopLayers(1)), Contestant("side", LadderSide())]
    (top, side), notes = matched(given_, f"trainable={share}%", model)
    assert top.way.k == 2 and "k 2 instead of 1" in notes[0]  # type: ignore[union-attr]
    counts = {r: trainable(model, LadderSide(reduction=r)) for r in (1, 2, 4, 8, 16, 32)}
    assert side.way.reduction == min(r for r, n in counts.items() if n <= share / 100 * total)  # type: ignore[union-attr]


def test_what_has_one_size_stays_and_is_told() -> None:
    model = zoo.tiny("bert", "classification")
    entrant = entrants.find(entrants.names()[0])()
    given_ = [Contestant("bitfit", BitFit()), Contestant("full", TopLayers("all")), Contestant("head", TopLayers(0)),
              Contestant("base", entrant), Contestant("fixed", LoRA(), of="x", at=(("rank", 8),)),
              Contestant("sum", LoRA() + PrefixTuning(), of="x", at=(("lora.rank", 8),))]  # fmt: skip
    found, notes = matched(given_, "trainable=3000", model)
    assert found == given_
    count = trainable(model, BitFit())
    assert notes[0] == f"bitfit: it has one size, and stays as it is ({count:,} trainable)"
    assert [note.partition(":")[0] for note in notes] == ["bitfit", "full", "head", "base", "fixed", "sum"]
    assert "is not fine-tuning" in notes[3] and "rank is swept" in notes[4] and "rank is swept" in notes[5]


def test_what_does_not_fit_the_model_is_told() -> None:
    model = zoo.tiny("bloom")
    (found,), (note,) = matched([Contestant("prefix", PrefixTuning())], "trainable=3000", model)
    assert found.way == PrefixTuning() and "does not fit this model" in note


def test_several_sizes_change_in_proportion() -> None:
    assert resized(LoRA(rank=8) + PrefixTuning(tokens=20), 10) == LoRA(rank=4) + PrefixTuning(tokens=10)
    assert resized(MAM(tokens=10, hidden=100, bottleneck=50), 1) == MAM(tokens=1, hidden=1, bottleneck=1)
    assert resized(MAM(reparameterize=False, tokens=10, bottleneck=20), 40).bottleneck == 40  # type: ignore[attr-defined]
    model = zoo.tiny("bert", "classification")
    both = LoRA(rank=4) + PrefixTuning(tokens=8)
    (found,), _ = matched([Contestant("both", both)], "trainable=2500", model)
    assert isinstance(found.way, Method) and trainable(model, found.way) <= 2500
    rank, tokens = found.way.methods()[0].rank, found.way.methods()[1].tokens  # type: ignore[attr-defined]
    assert tokens > 8 and rank == round(tokens / 2)


# One of each kind of size, for the default suite.
KINDS = ("lora", "pfeiffer", "prefix_tuning", "fish_mask", "ladder_side", "unipelt", "compacter", "oft", "top_layers",
         "intrinsic_subspace", "lora+prefix_tuning")  # fmt: skip


@pytest.mark.parametrize("name", cases.some(sorted(cases.NAMES, key=lambda name: name not in KINDS), len(KINDS)))
def test_every_method_is_matched_or_told(name: str) -> None:
    model = zoo.tiny(cases.one(name))
    method = cases.method(name)
    (found,), (note,) = matched([Contestant("one", method)], "trainable=4000", model)
    assert isinstance(found.way, Method) and note.startswith("one: ")
    counted = "too large" if "too large" in note else f"{trainable(model, found.way):,} trainable"
    assert counted in note
    assert grafted(model) is None


def test_a_density_is_a_size() -> None:
    (found,), (note,) = matched([Contestant("mask", RandomMask())], "trainable=1500", MODEL)
    assert isinstance(found.way, RandomMask) and re.search(r"density 0\.\d+ instead of 0\.005", note)
    denser = RandomMask(density=found.way.density + 1e-4)
    assert trainable(MODEL, found.way) <= 1500 < trainable(MODEL, denser)


def test_names_order_and_other_settings_stay() -> None:
    model = zoo.tiny("bert", "classification")
    given_ = assembled(["big=lora", "lora", "tfidf"], {"big": {"alpha": [3.0], "lr": [1e-4]}})
    found, _ = matched(given_, "trainable=2000", model)
    assert [each.name for each in found] == ["big", "lora", "tfidf"]
    assert (found[0].way.alpha, found[0].rate) == (3.0, 1e-4)  # type: ignore[union-attr]
    assert found[0].way.rank == found[1].way.rank  # type: ignore[union-attr]


def memory(note: str) -> float:
    number, unit = re.findall(r"([\d.,]+) (B|kB|MB)", note)[0]
    return float(number.replace(",", "")) * {"B": 1, "kB": 1e3, "MB": 1e6}[unit]


@pytest.mark.parametrize("on", ["bert", "llama", "t5"])
def test_memory_buys_size(on: str) -> None:
    model: Any = zoo.tiny(on, "classification" if on == "bert" else "lm")
    state, modes = torch.get_rng_state(), [m.training for m in model.modules()]
    ways = [Contestant("lora", LoRA(sites="all-linear")), Contestant("houlsby", Houlsby()),
            Contestant("bias", BitFit())]  # fmt: skip
    smallest, notes = matched(ways, "memory=1kb", model, batch=4, tokens=16)
    assert [getattr(each.way, size) for each, size in zip(smallest, ("rank", "bottleneck"), strict=False)] == [1, 1]
    assert all("above" in note for note in notes[:2])
    least = max(map(memory, notes[:2]))
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    assert least > weights
    found, notes = matched(ways, f"memory={1.3 * least / 1000:.0f}kb", model, batch=4, tokens=16)
    assert found[0].way.rank > 1 and found[1].way.bottleneck > 1 and found[2] == ways[2]  # type: ignore[union-attr]
    assert all(memory(note) <= 1.31 * least for note in notes[:2])
    more, _ = matched(ways, f"memory={1.3 * least / 1000:.0f}kb", model, batch=16, tokens=16)
    assert more[1].way.bottleneck < found[1].way.bottleneck  # type: ignore[union-attr]
    assert torch.equal(torch.get_rng_state(), state) and [m.training for m in model.modules()] == modes
