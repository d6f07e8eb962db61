"""A trunk: training from kept states is training, what is kept is shared, and where nothing may be skipped."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cases
import graft
from graft.anatomy import examine
from graft.attach.skip import Frozen
from graft.training import Fit, TrainingOptions, fit
from graft.training.frozen import Trunk, skipping
from graft.training.resume import copy_of
from graft.training.tuning import Study, prepared

Make = Callable[..., Study]
OPTIONS = TrainingOptions(steps=6, batch=8, lr=5e-3, checks=2)
HIGH = {
    "head": graft.TopLayers(k=0),
    "lora": graft.LoRA(rank=2, sites="q v @ top 1"),
    "top": graft.TopLayers(k=1),
    "side": graft.LadderSide(reduction=4),
}


def train(made: Study, method: Any, trunk: Trunk | None, options: TrainingOptions = OPTIONS) -> tuple[Any, Fit]:
    adapter = prepared(made.model, method, "small", made.tokenizer, 0)
    rows = made.task.features(made.train, made.tokenizer, train=True)
    held = made.task.features(made.validation, made.tokenizer)
    return adapter, fit(made.model, made.tokenizer, made.task, rows, held, adapter, options, trunk=trunk)


def losses(fitted: Fit) -> list[float]:
    return [line[name] for line in fitted.history for name in ("loss", "validation_loss") if name in line]


def counted(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows that go through the lowest layer."""
    seen: list[int] = []
    kind: Any = next(type(m) for m in model.modules() if type(m).__name__.endswith("SelfAttention"))
    forward = kind.forward

    def counting(self: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        if self.layer_idx == 0:
            seen.append(len(x))
        return forward(self, x, *args, **kwargs)

    monkeypatch.setattr(kind, "forward", counting)
    return seen


@pytest.mark.parametrize(
    ("kind", "rows", "which"),
    cases.some([("bert", "classes", "lora"), ("llama", "answers", "lora"), ("t5", "answers", "side"),
                ("bert", "classes", "head"), ("bert", "classes", "top"), ("bert", "classes", "side"),
                ("llama", "classes", "head"), ("llama", "answers", "side"), ("t5", "answers", "top")], 4),
)  # fmt: skip
def test_training_from_kept_states_is_training(study: Make, kind: str, rows: str, which: str) -> None:
    plain, reference = train(study(kind, rows, still=True), HIGH[which], None)
    trunk = Trunk()
    ours, fitted = train(study(kind, rows, still=True), HIGH[which], trunk)
    assert len(trunk) and trunk.bytes and trunk.seconds
    assert losses(fitted) == pytest.approx(losses(reference), rel=1e-4)
    # A key's bias has no gradient but rounding, of which Adam makes steps of full size.
    moved = {name: tensor for name, tensor in copy_of(plain).items() if "key.bias" not in name}
    torch.testing.assert_close({name: copy_of(ours)[name] for name in moved}, moved, rtol=1e-3, atol=1e-4)


def test_rows_go_through_frozen_layers_once_for_all_runs(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, made = Trunk(), study()
    seen, epoch = counted(made.model, monkeypatch), TrainingOptions(epochs=1, batch=8, checks=2)
    first, _ = train(made, HIGH["head"], trunk, epoch)
    graft.detach(made.model, "small")
    rows = len(made.train) + len(made.validation)
    assert len(trunk) == rows
    spent = trunk.seconds
    assert sum(seen) == rows + 2  # and two rows to see that nothing changes
    again, _ = train(made, HIGH["head"], trunk, epoch)
    assert sum(seen) == rows + 4 and trunk.seconds == spent
    assert all(torch.equal(tensor, copy_of(again)[name]) for name, tensor in copy_of(first).items())


def test_what_is_kept_does_not_depend_on_who_came_first(study: Make) -> None:
    alone, _ = train(study(), HIGH["lora"], Trunk())
    trunk = Trunk()
    for which in ("side", "top", "head"):
        train(study(), HIGH[which], trunk, TrainingOptions(steps=3, batch=4, seed=5))
    after, _ = train(study(), HIGH["lora"], trunk)
    assert all(torch.equal(tensor, copy_of(after)[name]) for name, tensor in copy_of(alone).items())


def test_without_room_the_same_comes_out(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, _ = train(study(), HIGH["head"], Trunk())
    small, none = Trunk(), Trunk(share=0.0)
    monkeypatch.setattr("graft.training.frozen.available", lambda device: 40_000)
    for trunk in (small, none):
        made, _ = train(study(), HIGH["head"], trunk)
        assert all(torch.equal(tensor, copy_of(made)[name]) for name, tensor in copy_of(kept).items())
    assert 0 < small.bytes <= 10_000 and len(none) == 0


def test_other_weights_empty_a_trunk(study: Make) -> None:
    trunk = Trunk()
    train(study(), HIGH["top"], trunk)
    spent, made = trunk.seconds, study()
    with torch.no_grad():
        made.model.classifier.weight.add_(0.1)  # type: ignore[union-attr,operator]
        made.model.bert.encoder.layer[1].output.dense.weight.add_(0.1)  # type: ignore[union-attr,index]
    train(made, HIGH["top"], trunk)
    assert trunk.seconds == spent  # those are above
    made = study()
    with torch.no_grad():
        made.model.bert.embeddings.word_embeddings.weight[3].add_(0.1)  # type: ignore[union-attr,index]
    rows = len(trunk)
    train(made, HIGH["top"], trunk)
    assert trunk.seconds > spent and len(trunk) == rows


@pytest.mark.parametrize(
    ("kind", "method"),
    cases.some([("bert", graft.PromptTuning(tokens=2)), ("bert", graft.LoRA(rank=2)),
                ("llama", graft.TopLayers(k="all"))]),
)  # fmt: skip
def test_where_nothing_is_frozen_nothing_changes(study: Make, kind: str, method: Any) -> None:
    trunk = Trunk()
    plain, _ = train(study(kind), method, None)
    ours, _ = train(study(kind), method, trunk)
    assert not len(trunk)
    assert all(torch.equal(tensor, copy_of(ours)[name]) for name, tensor in copy_of(plain).items())


def test_positions_that_depend_on_padding_are_found(study: Make) -> None:
    made = study()
    made.tokenizer.padding_side = "left"  # where learned positions count from the padding
    adapter = prepared(made.model, HIGH["lora"], "small", made.tokenizer, 0)
    rows = made.task.features(made.train, made.tokenizer, train=True)

    def loss(part: Any) -> Tensor:
        return made.model(**made.task.inputs(made.task.collate(part, made.tokenizer))).loss

    with skipping(adapter, Trunk(), rows, loss) as skips:
        assert not skips
    made.tokenizer.padding_side = "right"
    with skipping(adapter, Trunk(), rows, loss) as skips:
        assert skips
    with skipping(adapter, None, rows, loss) as skips:
        assert not skips


def test_a_tensor_below_that_trains_unnoticed_is_found(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = study()
    adapter = prepared(made.model, graft.TopLayers(k=2), "small", made.tokenizer, 0)
    rows = made.task.features(made.train, made.tokenizer, train=True)
    stack = examine(made.model).stacks[0]
    monkeypatch.setattr("graft.training.frozen.frozen", lambda adapter: Frozen(stack, 1, False))

    def loss(part: Any) -> Tensor:
        return made.model(**made.task.inputs(made.task.collate(part, made.tokenizer))).loss

    with skipping(adapter, Trunk(), rows, loss) as skips:
        assert not skips


def test_it_works_with_bf16_arithmetic_and_checkpointed_activations(study: Make) -> None:
    for more in ({"autocast": True}, {"checkpointing": True}):
        options = TrainingOptions(steps=6, batch=8, lr=5e-3, checks=2, **more)
        trunk = Trunk()
        _, reference = train(study("llama", "answers", still=True), HIGH["lora"], None, options)
        _, fitted = train(study("llama", "answers", still=True), HIGH["lora"], trunk, options)
        assert len(trunk)
        assert losses(fitted) == pytest.approx(losses(reference), rel=2e-2 if "autocast" in more else 1e-4)
