"""Floating point operations, against torch's own counter, and where that cannot count."""

import pytest
from torch.utils.flop_counter import FlopCounterMode

import cases
import zoo
from graft.tournament.flops import Flops


@pytest.mark.parametrize("method", ["lora", "pfeiffer", "prefix_tuning"])
@pytest.mark.parametrize("name", ["bert", "llama", "t5"])
def test_the_count_is_torch_s_own(name: str, method: str) -> None:
    model = zoo.tiny(name)
    cases.grafted(model, method)
    counts = []
    for counter in (Flops(), FlopCounterMode(display=False)):
        with counter:
            zoo.forward(model, zoo.batch(model)).square().mean().backward()
        counts.append(counter.total if isinstance(counter, Flops) else counter.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_a_backward_within_a_backward_is_counted() -> None:
    """The reversible base runs its blocks again: about once more than forward and backward of a plain one."""
    found = {}
    for method in ("meft", "pfeiffer"):
        model = zoo.tiny("llama")
        cases.grafted(model, method)
        with Flops() as counter:
            zoo.forward(model, zoo.batch(model)).square().mean().backward()
        found[method] = counter.total
    assert 1.2 * found["pfeiffer"] < found["meft"] < 2 * found["pfeiffer"]
