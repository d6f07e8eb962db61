"""Which adapter is in use: nested, after an error, one per row, and what is refused."""

import pytest
import torch

import cases
import zoo
from graft.attach import attach, detach, grafted, use
from graft.errors import BadInput, Refused
from graft.methods.bitfit import BitFit
from graft.methods.lora import LoRA
from graft.methods.pfeiffer import Pfeiffer
from graft.methods.top_layers import TopLayers


@pytest.fixture
def two() -> tuple:
    """A model with adapters a and b, a batch, and the outputs with a, with b and with neither."""
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    cases.move(attach(model, LoRA(rank=2), "a"), seed=1)
    cases.move(attach(model, LoRA(rank=3), "b"), seed=2)
    outs = {None: base}
    for name in ("a", "b"):
        with use(model, name):
            outs[name] = zoo.forward(model, batch)
    return model, batch, outs


def same(model: object, batch: dict, expected: torch.Tensor) -> bool:
    return torch.allclose(zoo.forward(model, batch), expected, atol=1e-5)


def test_the_last_attached_is_in_use_and_blocks_nest(two: tuple) -> None:
    model, batch, outs = two
    assert same(model, batch, outs["b"]) and not same(model, batch, outs["a"])
    with use(model, "a") as same_model:
        assert same_model is model
        assert same(model, batch, outs["a"])
        with use(model, None):
            assert same(model, batch, outs[None])
            with use(model, ["a", None]):
                mixed = zoo.forward(model, batch)
            assert same(model, batch, outs[None])
        assert same(model, batch, outs["a"])
    assert same(model, batch, outs["b"])
    torch.testing.assert_close(mixed[0], outs["a"][0], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[1], outs[None][1], atol=1e-5, rtol=1e-5)


def test_an_error_inside_leaves_what_was_in_use(two: tuple) -> None:
    model, batch, outs = two
    with pytest.raises(RuntimeError, match="mine"), use(model, "a"):
        raise RuntimeError("mine")
    assert same(model, batch, outs["b"])


def test_a_failing_forward_leaves_the_model_usable(two: tuple) -> None:
    model, batch, outs = two
    handle = model.model.layers[1].register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("mine")))
    with pytest.raises(RuntimeError, match="mine"), use(model, ["a", "b"]):
        zoo.forward(model, batch)
    handle.remove()
    assert same(model, batch, outs["b"])


def test_what_was_in_use_may_be_gone_afterwards(two: tuple) -> None:
    model, batch, outs = two
    with use(model, "a"):
        detach(model, "b")
        assert same(model, batch, outs["a"])
    assert same(model, batch, outs["a"])
    with use(model, None):
        detach(model, "a")
    assert grafted(model) is None and torch.equal(zoo.forward(model, batch), outs[None])


def test_what_is_refused(two: tuple) -> None:
    model, batch, _ = two
    with pytest.raises(BadInput, match=r"no adapter c, d; attached are: a, b"), use(model, ["c", "a", "d", None]):
        pass
    with pytest.raises(BadInput, match="empty list"), use(model, []):
        pass
    with use(model, ["a", "b", None]), pytest.raises(BadInput, match="3 adapter names for a batch of 2 rows"):
        zoo.forward(model, batch)
    with pytest.raises(BadInput, match="nothing is attached"), use(zoo.tiny("llama"), None):
        pass


def test_rows_of_one_name_are_that_name(two: tuple) -> None:
    model, batch, outs = two
    with use(model, ["a", "a"]):
        assert same(model, batch, outs["a"])


def test_rows_through_a_norm_that_trains_too() -> None:
    """Pfeiffer's adapter runs the block's norm on its own rows, where BitFit has a bias on it."""
    model = zoo.tiny("bert")
    batch = zoo.batch(model)
    cases.move(attach(model, Pfeiffer(4) + BitFit(), "a"))
    cases.move(attach(model, LoRA(rank=2), "b"), seed=2)
    with use(model, ["a", "b"]):
        mixed = zoo.forward(model, batch)
    for row, name in enumerate(("a", "b")):
        with use(model, name):
            alone = zoo.forward(model, batch)
        torch.testing.assert_close(mixed[row], alone[row], atol=1e-5, rtol=1e-5)


def test_an_adapter_in_place_gives_way_to_the_base() -> None:
    model = zoo.tiny("llama")
    batch = zoo.batch(model)
    base = zoo.forward(model, batch)
    cases.move(attach(model, TopLayers(1)))
    tuned = zoo.forward(model, batch)
    with use(model, None):
        assert torch.equal(zoo.forward(model, batch), base)
        with use(model, "default"):
            assert torch.equal(zoo.forward(model, batch), tuned)
        assert torch.equal(zoo.forward(model, batch), base)
    assert torch.equal(zoo.forward(model, batch), tuned)
    with pytest.raises(Refused, match="rows of one batch"), use(model, ["default", None]):
        pass
    with use(model, None):
        detach(model)
    assert torch.equal(zoo.forward(model, batch), base) and grafted(model) is None


@pytest.mark.parametrize("names", [3, [3, None], b"a", {"a": None}])
def test_names_of_another_kind_are_refused(names: object, two: tuple) -> None:
    with pytest.raises(BadInput, match="an adapter is used by its name"), use(two[0], names):
        pass
