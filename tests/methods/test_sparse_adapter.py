"""SparseAdapter: counts, the block by hand, each score by plain gradients of dense adapters, what is stored."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

import cases
import zoo
from graft.attach import attach
from graft.checkpoint import load, save
from graft.errors import BadInput
from graft.methods.sparse_adapter import Entries, SparseAdapter
from methods import blocks
from methods.sizes import counts


def labelled(model: torch.nn.Module) -> dict[str, Tensor]:
    batch = zoo.batch(model)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def test_counts() -> None:
    pruned, biases = round(0.2 * 64 * 768), 64 + 768
    assert counts("roberta-base", SparseAdapter(64)).trainable == 12 * (2 * pruned + biases)
    assert counts("roberta-base", SparseAdapter(64, placement="houlsby")).trainable == 24 * (2 * pruned + biases)
    # Large-Sparse: twice the width at s = 0.5, and the weights of the dense adapter with 48 (894,528 with biases).
    large = counts("roberta-base", SparseAdapter(48, sparsity=0.5, large=True))
    assert large.trainable == 894_528 + 12 * 48
    assert large.stored - 4 * large.head == 12 * (8 * 2 * 48 * 768 + 4 * (96 + 768))  # four bytes a place, four a value


@pytest.mark.parametrize("placement", ["pfeiffer", "houlsby"])
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_block_by_hand(name: str, placement: str) -> None:
    base, tuned = zoo.tiny(name), zoo.tiny(name)
    adapter = cases.grafted(tuned, "sparse_adapter", placement=placement)

    def change(role: str) -> blocks.Change:
        def changed(index: int, out: Tensor, residual: Tensor, inner: Tensor) -> Tensor:
            part, z = adapter.parts[blocks.key(name, index, role)], out
            down, up = torch.zeros(4, 32), torch.zeros(32, 4)
            for dense, matrix in ((down, part.down), (up, part.up)):
                assert len(matrix.at) == round(0.2 * 4 * 32)
                for place, value in zip(matrix.at.tolist(), matrix.values.tolist(), strict=True):
                    dense[divmod(place, dense.shape[1])] = value
            if placement == "pfeiffer":
                z = out + residual
                z = base.bert.encoder.layer[index].output.LayerNorm(z) if name == "bert" else z
            return out + F.relu(z @ down.T + part.down_bias) @ up.T + part.up_bias

        return changed

    attention = change("attention") if placement == "houlsby" else blocks.keep
    blocks.REWRITE[name](base, attention=attention, ffn=change("ffn"))
    batch = zoo.batch(base)
    torch.testing.assert_close(zoo.forward(tuned, batch), zoo.forward(base, batch), atol=2e-5, rtol=2e-5)


def test_scores_without_data() -> None:
    for score in ("random", "magnitude", "synflow"):
        torch.manual_seed(0)
        model = zoo.tiny("llama")
        torch.manual_seed(0)
        part = attach(model, SparseAdapter(4, score=score)).parts["decoder.0.ffn"]
        torch.manual_seed(0)
        down = torch.empty(4, 32).normal_(0, 0.02).requires_grad_()
        up = torch.empty(32, 4).normal_(0, 0.02).requires_grad_()
        assert torch.equal(part.down.values, down.flatten()[part.down.at.long()])
        if score == "random":
            assert part.down.at.tolist() != down.abs().flatten().topk(26).indices.sort().values.tolist()
            continue
        wanted = [down.abs(), up.abs()]
        if score == "synflow":
            flow = (torch.ones(32) @ down.abs().T @ up.abs().T).sum()
            wanted = [(w * g).abs() for w, g in zip((down, up), torch.autograd.grad(flow, (down, up)), strict=True)]
        for matrix, found in zip((part.down, part.up), wanted, strict=True):
            assert matrix.at.tolist() == found.flatten().topk(26).indices.sort().values.tolist()


@pytest.mark.parametrize("score", ["snip", "grasp"])
def test_scores_on_training_rows(score: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, SparseAdapter(4, score=score, samples=3))
    matrices = [m for m in model.modules() if isinstance(m, Entries)]
    before, batches, drawn = adapter.counts.trainable, [labelled(model)] * 5, []
    keep = Entries.keep

    def seen(matrix: Entries, at: Tensor) -> None:
        drawn.append(matrix.values.detach().clone())
        keep(matrix, at)

    monkeypatch.setattr(Entries, "keep", seen)
    adapter.method.prepare(model, batches, list(adapter.parts.values()))
    assert adapter.counts.trainable == before
    kept = [matrix.at.tolist() for matrix in matrices]
    assert len({len(at) for at in kept}) > 1  # one ranking of all weights

    # The same scores from one loss over the three rows, all weights at once.
    for matrix, values in zip(matrices, drawn, strict=True):
        matrix._hold(torch.arange(len(values)), values)
    weights = [matrix.values for matrix in matrices]
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        loss = model(**batches[0]).loss + model(**{key: value[:1] for key, value in batches[0].items()}).loss
    slopes = torch.cat(torch.autograd.grad(loss, weights, create_graph=True))
    whole = torch.cat(weights)
    wanted = (slopes * whole).abs()
    if score == "grasp":
        wanted = whole * torch.cat(torch.autograd.grad(slopes @ slopes.detach(), weights))
    order = wanted.topk(sum(map(len, kept))).indices.sort().values.tolist()
    ends = [0, *torch.tensor([len(w) for w in weights]).cumsum(0).tolist()]
    assert order == [place + start for at, start in zip(kept, ends, strict=False) for place in at]

    for matrix, at in zip(matrices, kept, strict=True):
        keep(matrix, torch.tensor(at))
    save(model, "default", tmp_path / "kept")
    other = zoo.tiny("llama")
    load(other, tmp_path / "kept")
    batch = zoo.batch(model)
    assert torch.equal(zoo.forward(other, batch), zoo.forward(model, batch))


def test_impossible_settings() -> None:
    for settings in ({"bottleneck": 0}, {"sparsity": 0.0}, {"sparsity": 1.0}, {"std": 0.0}, {"samples": 0}):
        with pytest.raises(BadInput, match=f"SparseAdapter: {next(iter(settings))} must"):
            SparseAdapter(**settings)
