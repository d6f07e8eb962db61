"""AdaLoRA: published counts, the equation, the penalty, importance and schedule by hand, pruning, refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch

import cases
import zoo
from graft import checkpoint
from graft.attach import Adapter, attach, merge
from graft.errors import BadInput, Refused
from graft.method import find
from graft.methods.adalora import AdaLoRA
from graft.training import resume
from methods.moments import moment
from methods.sizes import counts

SHORT = {"init_rank": 4, "target_rank": 2, "total_steps": 20, "warmup": 4, "final": 6, "interval": 1}


@pytest.mark.parametrize(("model", "published"), [("roberta-base", 1_034_786), ("roberta-large", 2_231_874)])
def test_counts_are_the_published_ones(model: str, published: int) -> None:
    found = counts(model, AdaLoRA(init_rank=12))  # 1.03M and 2.23M, with the head
    assert found.trainable + found.head == published
    assert found.stored == 4 * published and found.rank == 12  # nothing of what only training needs


def test_equation() -> None:
    plain, tuned = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "adalora", alpha=6.0)
    for index, layer in enumerate(plain.model.layers):
        for role, linear in (("q", layer.self_attn.q_proj), ("v", layer.self_attn.v_proj)):
            part = adapter.parts[f"decoder.{index}.{role}"]
            update = part.P @ torch.diag(part.lam) @ part.Q
            linear.weight.data += 6.0 / (len(part.lam) + 1e-5) * update.detach()
    batch = zoo.batch(plain)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(plain, batch), atol=1e-5, rtol=1e-5)
    merge(tuned)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(plain, batch), atol=1e-5, rtol=1e-5)


def test_starts() -> None:
    for part in attach(zoo.tiny("llama", hidden_size=256, head_dim=64), AdaLoRA()).parts.values():
        assert not part.lam.any()
        assert all(abs(float(t.detach().std()) / 0.02 - 1) < 0.1 for t in (part.P, part.Q))


def test_penalty_is_the_mean_of_the_norms() -> None:
    method = AdaLoRA(init_rank=3, target_rank=2, penalty=0.5)
    adapter = attach(zoo.tiny("llama"), method)
    cases.move(adapter)
    parts = list(adapter.parts.values())
    grams = [gram for p in parts for gram in (p.P.T @ p.P, p.Q @ p.Q.T)]
    want = 0.5 * sum(torch.linalg.matrix_norm(gram - torch.eye(3)) for gram in grams) / len(grams)
    found = method.during("loss", moment(0), parts)
    torch.testing.assert_close(found, want)
    found.backward()
    assert all(part.P.grad.any() and part.Q.grad.any() and part.lam.grad is None for part in parts)
    assert AdaLoRA(penalty=0.0).during("loss", moment(0), parts) is None


def test_schedule_by_hand() -> None:
    method = AdaLoRA(**SHORT)
    found = [method.budget(method.pruned(moment(step - 1)), 3) for step in range(21)]
    want = [12] * 5 + [int(6 + 6 * (1 - (t - 4) / 10) ** 3) for t in range(5, 14)] + [6] * 7
    assert found == want


def run(method: AdaLoRA, steps: int, **settings: Any) -> tuple[Adapter, list[int]]:
    """Train on random targets as the trainer does; how many λ are left after each step."""
    torch.manual_seed(0)
    model = zoo.tiny("llama")
    adapter, batch = attach(model, method), zoo.batch(model)
    parts = list(adapter.parts.values())
    optimizer = torch.optim.Adam(adapter.parameters(), lr=1e-2)
    left = []
    for step in range(steps):
        zoo.forward(model, batch).square().mean().backward()
        method.during("loss", moment(step, of=steps), parts).backward()
        optimizer.step()
        method.during("stepped", moment(step, of=steps), parts)
        optimizer.zero_grad()
        left.append(sum(int(part.lam.count_nonzero()) for part in parts))
    return adapter, left


def test_pruning_follows_the_schedule_and_ends_at_the_target() -> None:
    method = AdaLoRA(**SHORT)
    adapter, left = run(method, 24)
    assert left == [method.budget(method.pruned(moment(step)), 4) for step in range(24)]
    assert left[0] == 16 and left[-1] == 8
    assert adapter.counts.rank == max(int(part.lam.count_nonzero()) for part in adapter.parts.values())
    before = [part.lam != 0 for part in adapter.parts.values()]
    again, _ = run(method, 15)
    assert all(torch.equal(part.lam != 0, mask) for part, mask in zip(again.parts.values(), before, strict=True))


def test_the_rank_is_that_of_the_triplets_left() -> None:
    adapter = cases.grafted(zoo.tiny("llama"), "adalora", sites="q")
    lower, upper = adapter.parts.values()
    lower.lam.data.zero_()  # a site may lose all of its own
    upper.lam.data[1:] = 0
    update = upper.scale * (upper.P * upper.lam) @ upper.Q
    assert adapter.counts.rank == 1 == int(torch.linalg.matrix_rank(update.detach()))


def test_in_the_final_phase_importance_stands_still() -> None:
    method = AdaLoRA(**SHORT)
    adapter = attach(zoo.tiny("llama"), method)
    parts = list(adapter.parts.values())
    cases.move(adapter)
    for step, notes in ((12, True), (13, False), (19, False)):
        for part in parts:
            part.lam.grad = torch.ones_like(part.lam)
        before = [part.scores() for part in parts]
        method.during("stepped", moment(step), parts)
        assert notes is not all(torch.equal(part.scores(), was) for part, was in zip(parts, before, strict=True))


def test_without_numbers_the_schedule_is_laid_over_the_run() -> None:
    method = AdaLoRA(init_rank=4, target_rank=2, interval=1)
    for steps in (20, 50):
        _, left = run(method, steps)
        assert left[: steps // 10] == [16] * (steps // 10)
        assert left[-1] == 8 and min(left[: steps // 3]) > 8 and set(left[7 * steps // 10 :]) == {8}
    assert method.remarks([]) == () and AdaLoRA(**SHORT).remarks([]) != ()


def test_what_is_pruned_may_grow_again_before_the_final_phase() -> None:
    _, left = run(AdaLoRA(**{**SHORT, "interval": 5}), 20)
    assert left[4] < 16 and left[5] == 16 and left[9] < 16 and left[10] == 16 and set(left[13:]) == {8}


def test_equal_ranks_prune_nothing() -> None:
    method = AdaLoRA(**{**SHORT, "init_rank": 3, "target_rank": 3})
    assert run(method, 20)[1] == [12] * 20 and method.remarks([]) == ()
    assert method.settled(moment(0))


def test_the_final_phase_is_when_it_settles_also_within_a_host() -> None:
    for method in (AdaLoRA(**SHORT), find("adapter_drop")(host=AdaLoRA(**SHORT))):
        assert [step for step in range(20) if method.settled(moment(step))] == [13, 14, 15, 16, 17, 18, 19]
    share = [step for step in range(25) if AdaLoRA(init_rank=4, target_rank=2).settled(moment(step, of=25))]
    assert share == list(range(18, 25))


def test_ties_prune_no_more_than_asked() -> None:
    method = AdaLoRA(**SHORT)
    adapter = attach(zoo.tiny("llama"), method)
    cases.move(adapter)
    parts = list(adapter.parts.values())
    method.during("stepped", moment(30), parts)  # no gradient was ever seen: all are of importance 0
    assert sum(int(part.lam.count_nonzero()) for part in parts) == 8


def test_importance_by_hand() -> None:
    adapter = attach(zoo.tiny("llama"), AdaLoRA(init_rank=3, target_rank=2, sites="q"))
    part = adapter.parts["decoder.0.q"]
    draws = torch.Generator().manual_seed(0)
    smooth, apart = {}, {}
    for _ in range(3):
        for name, parameter in part.named_parameters():
            parameter.data = torch.randn(parameter.shape, generator=draws)
            parameter.grad = torch.randn(parameter.shape, generator=draws)
            seen = (parameter.detach() * parameter.grad).abs()
            smooth[name] = 0.85 * smooth.get(name, 0 * seen) + 0.15 * seen
            apart[name] = 0.7 * apart.get(name, 0 * seen) + 0.3 * (seen - smooth[name]).abs()
        part.note(0.85, 0.7)
    for k in range(3):
        want = smooth["lam"][k] * apart["lam"][k]
        want += (smooth["P"] * apart["P"])[:, k].mean() + (smooth["Q"] * apart["Q"])[k].mean()
        torch.testing.assert_close(part.scores()[k], want)


def test_only_the_triplets_are_saved(tmp_path: Path) -> None:
    tuned, other = zoo.tiny("llama"), zoo.tiny("llama")
    adapter = cases.grafted(tuned, "adalora", "mine", init_rank=3, target_rank=2)
    adapter.parts["decoder.0.q"].lam.data[1] = 0
    checkpoint.save(tuned, "mine", tmp_path / "adapter")
    loaded = checkpoint.load(other, tmp_path / "adapter")
    assert loaded.parts["decoder.0.q"].bound(None) == 2
    batch = zoo.batch(tuned)
    torch.testing.assert_close(zoo.forward(other, batch), zoo.forward(tuned, batch), atol=0, rtol=0)


def test_a_run_goes_on_from_a_copy_as_if_it_had_not_stopped() -> None:
    method = AdaLoRA(**SHORT)
    adapter, _ = run(method, 9)
    copy = resume.copy_of(adapter)
    other = attach(zoo.tiny("llama"), method)
    resume.put(other, copy, "the copy")
    for made in (adapter, other):
        method.during("stepped", moment(12), list(made.parts.values()))  # prunes by what was noted before
    for key, part in adapter.parts.items():
        assert torch.equal(other.parts[key].lam, part.lam) and torch.equal(other.parts[key].scores(), part.scores())


def test_impossible_settings() -> None:
    wrong = (
        {"init_rank": 0}, {"target_rank": 13}, {"alpha": 0.0}, {"warmup": 5}, {"final": 5}, {"interval": 0},
        {"penalty": -1.0}, {"beta1": 1.0}, {"beta2": 0.0}, {"dropout": 1.0}, {"total_steps": 0},
        {"warmup": -1, "total_steps": 9}, {"total_steps": 9, "warmup": 5, "final": 5},
    )  # fmt: skip
    for settings in wrong:
        with pytest.raises(BadInput, match=f"AdaLoRA: {next(iter(settings))} must"):
            AdaLoRA(**settings)
    with pytest.raises(BadInput, match="choose at most 16"):
        attach(zoo.tiny("llama"), AdaLoRA(init_rank=20))
    with pytest.raises(Refused, match="the weight there is a vector"):
        attach(zoo.tiny("llama"), AdaLoRA(sites="norm"))
