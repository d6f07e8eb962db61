"""The contract: what every method owes, run on every method without knowing any. Numbers as in the design."""

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

import cases
import zoo
from graft.anatomy import examine, select
from graft.attach import attach, detach, grafted, merge, probe, unmerge, use
from graft.attach.recompute import checkpoint_activations
from graft.errors import NotApplied, Refused
from graft.method import Method

SUITED = [(m, n) for n in cases.NAMES for m in zoo.TEXT if cases.suits(n, m)]
EVERY = [pytest.param(m, n, marks=[] if m in cases.FEW else pytest.mark.slow) for m, n in SUITED]
ONCE = [pytest.param(m, n, marks=[] if m == cases.one(n) else pytest.mark.slow) for m, n in SUITED]
DECODED = [
    pytest.param(m, n, beams, marks=[] if (m, beams) in (("llama", 1), ("t5", 2)) else pytest.mark.slow)
    for m, n in SUITED for beams in (1, 2)
]  # fmt: skip
REFUSED = [(m, n) for n in cases.NAMES for m in zoo.TEXT if not cases.suits(n, m)]
on_all = pytest.mark.parametrize(("model_name", "name"), EVERY)
on_one = pytest.mark.parametrize(("model_name", "name"), ONCE)  # what has little to do with the kind of model


def outputs(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return zoo.forward(model, batch)


def real(model: nn.Module, batch: dict[str, Tensor], hidden: Tensor) -> Tensor:
    """The outputs at real tokens, flat: padding may do as it likes."""
    if "decoder_input_ids" in batch:
        return hidden.flatten(0, 1)
    return hidden[batch["attention_mask"].bool()]


def close(a: Tensor, b: Tensor, bound: float = 2e-5) -> None:
    assert torch.allclose(a, b, atol=bound, rtol=bound), f"differ by {float((a - b).abs().max()):.2e}"


def terms(method: Method) -> tuple[Method, ...]:
    return method.methods()


@pytest.mark.parametrize(("model_name", "name"), REFUSED)
def test_what_a_model_cannot_take_is_refused_and_leaves_no_trace(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    with pytest.raises((NotApplied, Refused), match=r"attention interface|fused experts|several blocks|whole row"):
        attach(model, cases.method(name))
    assert grafted(model) is None


@on_all
def test_1_starts_where_it_says(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    batch = zoo.batch(model)
    base = outputs(model, batch)
    method = cases.method(name)
    attach(model, method)
    difference = float((outputs(model, batch) - base).abs().max())
    starts = {term.start for term in terms(method)}
    if starts == {"exact"}:
        assert difference <= 1e-5
    elif "elsewhere" in starts:
        assert difference > 1e-4, "declared not to start as the base, but does"
    else:
        assert difference <= 1e-2


@on_all
def test_2_only_its_own_tensors_train(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    adapter = cases.grafted(model, name)
    mine = {id(p) for p in adapter.parameters()}
    zoo.forward(model, zoo.batch(model)).square().mean().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in adapter.parameters())
    assert [n for n, p in model.named_parameters() if p.grad is not None and id(p) not in mine] == []
    torch.optim.SGD(adapter.parameters(), lr=0.1).step()
    after = model.state_dict()
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed <= set(adapter.trained)


@on_one
def test_3_detach_leaves_no_trace(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    model.get_input_embeddings().requires_grad_(False)
    batch = zoo.batch(model)
    base, keys = outputs(model, batch), list(model.state_dict())
    flags = {n: p.requires_grad for n, p in model.named_parameters()}
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
    implementation = model.config._attn_implementation
    cases.grafted(model, name)
    assert not torch.equal(outputs(model, batch), base)
    detach(model)
    assert torch.equal(outputs(model, batch), base)
    assert list(model.state_dict()) == keys
    assert {n: p.requires_grad for n, p in model.named_parameters()} == flags
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert model.config._attn_implementation == implementation
    assert grafted(model) is None


@on_all
def test_4_merged_is_attached_or_refused(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    batch = zoo.batch(model)
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    adapter = cases.grafted(model, name)
    attached = outputs(model, batch)
    if adapter.trained:
        return
    try:
        merge(model)
    except Refused as refusal:
        assert "Serve it attached" in str(refusal)
        close(outputs(model, batch), attached, 0)
        return
    close(outputs(model, batch), attached, 1e-4)
    with pytest.raises(Refused, match="merged"), use(model, None):
        pass
    unmerge(model)
    close(outputs(model, batch), attached, 0)
    assert all(torch.equal(model.state_dict()[key], value) for key, value in weights.items())


@pytest.mark.parametrize(("model_name", "name", "beams"), DECODED)
def test_6_cached_generation_is_recomputation(model_name: str, name: str, beams: int) -> None:
    model = zoo.tiny(model_name)
    if not model.can_generate():
        return
    cases.grafted(model, name)
    cached_at_all = cases.caches(name, model_name)
    for left in (True, False):
        batch = zoo.batch(model, left_padding=left)
        batch.pop("decoder_input_ids", None)
        options = {"max_new_tokens": 5, "min_new_tokens": 5, "num_beams": beams, "do_sample": False, "pad_token_id": 0}
        plain = model.generate(**batch, **options, use_cache=False)
        if not cached_at_all:
            with pytest.raises(NotApplied, match="use_cache=False"):
                model.generate(**batch, **options, use_cache=True)
            return
        assert torch.equal(model.generate(**batch, **options, use_cache=True), plain)


@on_all
def test_7_rows_of_a_batch_equal_each_alone(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    mine = cases.grafted(model, name, "mine")
    batch = zoo.batch(model)
    if mine.trained:
        with pytest.raises(Refused, match="rows"), use(model, ["mine", None]):
            pass
        return
    cases.move(attach(model, cases.method("lora"), "other"), seed=2)
    for rows in (["mine", "other"], [None, "mine"], ["mine", None]):
        try:
            with use(model, rows):
                together = outputs(model, batch)
        except Refused as refusal:
            # Inside experts, or where a table of positions passes a projection, there are no rows to tell apart.
            assert "rows vanish" in str(refusal) and model_name in cases.ROWLESS
            return
        for index, row in enumerate(rows):
            with use(model, row):
                alone = outputs(model, batch)
            one = {key: value[index : index + 1] for key, value in batch.items()}
            close(real(model, one, together[index : index + 1]), real(model, one, alone[index : index + 1]), 5e-5)


@on_all
def test_8_counts_follow_the_formula(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    method, anatomy = cases.method(name), examine(model)
    adapter = attach(model, method)
    counts = adapter.counts
    if adapter.trained:
        assert counts.trainable == sum(p.numel() for p in adapter.parameters())
        return
    formula = sum(
        term.count([site.bind(model) for site in select(anatomy, term.expression()).sites]) for term in terms(method)
    )
    assert counts.trainable == formula == sum(p.numel() for p in adapter.parameters())
    kept = sum(tensor.numel() for part in adapter.parts.values() for tensor in part.state_dict().values())
    assert counts.stored <= 4 * kept  # what trains, and frozen tensors that must not depend on a library's version


@on_all
def test_9_padding_changes_nothing(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    cases.grafted(model, name)
    batch = zoo.batch(model)
    together = outputs(model, batch)
    for index, length in enumerate(zoo.LENGTHS):
        one = {
            k: v[index : index + 1] if k.startswith("decoder") else v[index : index + 1, :length]
            for k, v in batch.items()
        }
        padded = {key: value[index : index + 1] for key, value in batch.items()}
        # Of HyperFormer, which norms what it adds, on ALBERT 1e-4 is rounding: in double precision it is 7e-14.
        close(real(model, one, outputs(model, one)), real(model, padded, together[index : index + 1]), 2e-4)


@on_one
def test_9_gradient_checkpointing_changes_nothing(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    if not model.supports_gradient_checkpointing:
        return
    adapter = cases.grafted(model, name)
    if not adapter.trained:
        cases.move(attach(model, cases.method("lora"), "other"), seed=2)
    batch = zoo.batch(model)

    def gradients(interrupt: bool) -> list[Tensor]:
        model.train()
        torch.manual_seed(0)  # the same numbers drawn, where a method draws any
        with use(model, "default"):
            loss = zoo.forward(model, batch).square().mean()
        if interrupt and not adapter.trained:
            # Another forward, with another adapter, between this one's forward and its backward.
            with use(model, "other"):
                zoo.forward(model, batch)
        return list(torch.autograd.grad(loss, adapter.parameters(), allow_unused=True))

    plain = gradients(interrupt=False)
    checkpoint_activations(model, True)
    if name in cases.AGAIN:
        with pytest.raises(Refused, match="leave --checkpointing off"):
            gradients(interrupt=True)
        return
    for a, b in zip(plain, gradients(interrupt=True), strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            close(a, b, 1e-4)


@on_one
def test_9_half_precision_base_full_precision_parts(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    adapter = cases.grafted(model, name)
    batch = zoo.batch(model)
    full = outputs(model, batch)
    model.to(torch.bfloat16)
    if not adapter.trained:
        assert {p.dtype for p in adapter.parameters()} == {torch.float32}
    half = outputs(model, batch)
    assert half.dtype == torch.bfloat16
    assert float((half.float() - full).norm() / full.norm()) < 0.4  # tiny T5s round a lot; what is wrong is above 1


@on_all
def test_10_causal_models_stay_causal(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    if not examine(model).causal:
        return
    cases.grafted(model, name)
    batch = zoo.batch(model)
    key = "decoder_input_ids" if "decoder_input_ids" in batch else "input_ids"
    changed = {**batch, key: batch[key].clone()}
    changed[key][:, 4:] = (changed[key][:, 4:] + 7) % zoo.VOCABULARY
    close(outputs(model, batch)[:, :4], outputs(model, changed)[:, :4])


@on_one
def test_11_learns(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    adapter = attach(model, cases.method(name))
    batch = zoo.batch(model)
    target = torch.randint(5, zoo.VOCABULARY, zoo.forward(model, batch).shape[:2])
    optimizer = torch.optim.Adam(adapter.parameters(), lr=3e-2)

    def loss() -> Tensor:
        return nn.functional.cross_entropy(zoo.forward(model, batch).flatten(0, 1), target.flatten())

    first = loss().item()
    for _ in range(15):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
    # A handful of numbers cannot learn much of a random task.
    least = 0.02 if sum(parameter.numel() for parameter in adapter.parameters()) > 8 else 0.002
    assert loss().item() < first - least * abs(first)


@on_one
def test_15_copies_and_pickles(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    adapter = cases.grafted(model, name)
    batch = zoo.batch(model)
    expected = outputs(model, batch)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        close(outputs(other, batch), expected, 0)
        theirs = grafted(other).adapters["default"]
        assert not {id(p) for p in theirs.parameters()} & {id(p) for p in adapter.parameters()}
        detach(other)
    close(outputs(model, batch), expected, 0)


@on_one
def test_probe_sees_an_effect_and_its_absence(model_name: str, name: str) -> None:
    model = zoo.tiny(model_name)
    attach(model, cases.method(name))
    if {term.start for term in terms(cases.method(name))} == {"exact"}:
        with pytest.raises(NotApplied, match="does not change"):
            probe(model)
    detach(model)
    cases.grafted(model, name)
    assert probe(model) > 0
