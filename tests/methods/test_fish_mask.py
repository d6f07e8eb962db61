"""FISH masks: counts, the information by plain gradients of rows, one choice over all matrices, refusals."""

import pytest
import torch

import zoo
from graft.attach import attach
from graft.errors import BadInput
from graft.methods.fish_mask import FishMask
from methods.sizes import counts


def labelled(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    batch = zoo.batch(model)
    return batch | {"labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}


def test_counts() -> None:
    square, wide = round(0.005 * 768 * 768), round(0.005 * 768 * 3072)
    found = counts("roberta-base", FishMask())
    assert found.trainable == found.changed == 12 * (4 * square + 2 * wide)
    assert found.stored == 8 * found.trainable + 4 * found.head


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_mask_is_that_of_squared_gradients_of_rows(name: str) -> None:
    plain, tuned = zoo.tiny(name).eval(), zoo.tiny(name)
    batch = labelled(plain)
    adapter = attach(tuned, FishMask(density=0.02, sites="q v down"))
    before = adapter.counts.trainable
    tuned.train()
    adapter.method.prepare(tuned, [batch], list(adapter.parts.values()))
    assert tuned.training and not any(p.requires_grad for n, p in tuned.named_parameters() if ".graft." not in n)
    assert adapter.counts.trainable == before
    fisher = {site: torch.zeros(site.shape) for site in plain.parameters()}
    for row in range(len(batch["input_ids"])):
        plain.zero_grad()
        plain(**{key: value[row : row + 1] for key, value in batch.items()}).loss.backward()
        for parameter in fisher:
            fisher[parameter] += parameter.grad**2
    names = {id(p): n for n, p in plain.named_parameters()}
    whole = {names[id(p)]: score for p, score in fisher.items()}
    parts = list(adapter.parts.values())
    scores = [part.site.share("weight", whole[f"{part.site.path}.weight"]).flatten() for part in parts]
    threshold = torch.cat(scores).sort(descending=True).values[before - 1]
    for part, score in zip(parts, scores, strict=True):
        assert part.at.tolist() == (score >= threshold).nonzero().flatten().tolist()
    assert len({len(part.at) for part in parts}) > 1  # one choice over all matrices, not one for each
    assert len(torch.cat([part.values for part in parts])) == before


def test_it_reads_no_more_rows_than_asked() -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, FishMask(samples=3, sites="q"))
    seen = []

    def batches() -> object:
        for number in range(5):
            seen.append(number)
            yield labelled(model)  # rows of two

    adapter.method.prepare(model, batches(), list(adapter.parts.values()))
    assert seen == [0, 1]


def test_a_matrix_may_get_no_entry_and_still_train() -> None:
    model = zoo.tiny("llama")
    adapter = attach(model, FishMask(density=0.01, sites="q"))
    first, *rest = adapter.parts.values()
    first.select(torch.tensor([], dtype=torch.int64))
    optimizer = torch.optim.AdamW(adapter.parameters(), lr=1e-2, fused=True)
    model(**labelled(model)).loss.backward()
    optimizer.step()
    assert first.values.shape == (0,) and all(part.values.any() for part in rest)


def test_impossible_settings() -> None:
    for settings in ({"density": 0.0}, {"samples": 0}):
        with pytest.raises(BadInput, match=f"FishMask: {next(iter(settings))} must"):
            FishMask(**settings)
