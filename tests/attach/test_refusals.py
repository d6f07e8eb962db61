"""What is refused when it is attached: sums in which one would train in vain, virtual tokens without room for a row."""

import pytest

import zoo
from graft.attach import attach, grafted
from graft.errors import BadInput, Refused
from graft.method import find
from graft.methods.prefix_tuning import PrefixTuning
from graft.methods.prompt_tuning import PromptTuning


@pytest.mark.parametrize(
    ("first", "second"), [("bitfit", "ln_tuning"), ("mixout", "child_tuning"), ("houlsby", "ln_tuning")]
)
def test_two_that_train_one_parameter_are_no_sum(first: str, second: str) -> None:
    model = zoo.tiny("bert")
    settings = {"child_tuning": {"variant": "F"}}
    one, other = (find(name)(**settings.get(name, {})) for name in (first, second))
    with pytest.raises(Refused, match=r"both train the (weight|bias) of encoder.*sites that have nothing in common"):
        attach(model, one + other)
    assert grafted(model) is None


@pytest.mark.parametrize("model_name", ["llama", "gpt2", "bert"])
def test_virtual_tokens_leave_room_for_a_row(model_name: str) -> None:
    model = zoo.tiny(model_name)
    for method in (PromptTuning(64), PrefixTuning(64), PromptTuning(40) + PrefixTuning(24)):
        with pytest.raises(BadInput, match="64 virtual tokens leave none of the 64 positions"):
            attach(model, method)
    attach(model, PromptTuning(40) + PrefixTuning(23))
