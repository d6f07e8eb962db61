"""The LSTM learns what can be learned from the words, gives the same for the same seed, and stops by validation."""

from typing import Any

import pytest
import torch

import small
from graft import metrics
from graft.data.rows import Row
from graft.tournament.entrants.lstm import LSTM, Network, Reader

CLASSES = [{"text": text, "label": kind} for text, kind in small.sentences(120, 3)]
QUICK = {"hidden": 8, "embedding": 8, "lr": 0.03, "epochs": 6}


def test_classes(arena: Any) -> None:
    place = arena("verbalized", CLASSES[:80], CLASSES[80:])
    answerer = LSTM(**QUICK).fit(place, place.train, 0)
    records = answerer.answer(place.test)
    assert sum(r["output"] == row["label"] for r, row in zip(records, CLASSES[80:], strict=True)) >= 38
    assert all(sum(record["probabilities"]) == pytest.approx(1) for record in records)
    words = {word for row in CLASSES[:80] for word in row["text"].split()}
    width = 8 * (len(words) + 3) + 2 * (4 * 8 * 8 * 2 + 4 * 8 * 2) + 2 * (16 + 1)
    assert answerer.trainable == width and answerer.stored > 4 * width
    # One row alone is what it is among others.
    assert answerer.answer(place.test[3:4])[0]["probabilities"] == pytest.approx(records[3]["probabilities"], abs=1e-6)


def test_the_seed_alone_decides(arena: Any) -> None:
    place = arena("classification", CLASSES[:40])
    settings = LSTM(**{**QUICK, "epochs": 1})

    def first(seed: int) -> list[float]:
        return settings.fit(place, place.train, seed).answer(place.test[:1])[0]["probabilities"]

    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    same = first(0)
    assert torch.rand(1) == before  # the caller's random numbers are its own
    torch.rand(3)
    assert first(0) == same != first(1)


def test_numbers(arena: Any) -> None:
    rows = [{"text": row["text"], "label": 70.0 if row["label"] == "plant" else 20.0} for row in CLASSES]
    place = arena("regression", rows[:80], rows[80:])
    records = LSTM(**QUICK).fit(place, place.train, 0).answer(place.test)
    whole = [{**record, "reference": row["label"]} for record, row in zip(records, rows[80:], strict=True)]
    assert metrics.get("pearson").score(whole).value > 90


def test_tags_of_words_as_they_stand_and_beyond_the_limit(arena: Any) -> None:
    rows = [{"tokens": row["text"].split(), "tags": ["B-X" if word in small.PLANTS else "O"
             for word in row["text"].split()]} for row in CLASSES]  # fmt: skip
    place = arena("tagging", rows[:80], rows[80:], length=8)
    records = LSTM(**QUICK).fit(place, place.train, 0).answer(place.test)
    for record, row in zip(records, rows[80:], strict=True):
        assert len(record["output"]) == len(row["tokens"]) and record["output"][8:] == row["tags"][8:]
    right = [a == b for record, row in zip(records, rows[80:], strict=True)
             for a, b in zip(record["output"], row["tags"], strict=True)]  # fmt: skip
    assert sum(right) > 0.9 * len(right)


def test_the_epoch_of_the_lowest_validation_loss_is_kept(arena: Any) -> None:
    # Labels of validation rows are turned around: every epoch on the train rows makes them less likely.
    turned = [{**row, "label": {"animal": "plant", "plant": "animal"}[row["label"]]} for row in CLASSES[80:]]
    place = arena("classification", CLASSES[:80], turned)
    held = [LSTM(**{**QUICK, "epochs": epochs, "patience": 1}).fit(place, place.train, 0).answer(place.test)
            for epochs in (1, 6)]  # fmt: skip
    assert held[0] == held[1]


def test_padding_and_the_second_text(arena: Any) -> None:
    pairs = [{"text": "oak rose", "text_pair": "cat", "label": "x"}, {"text": "oak", "text_pair": "rose", "label": "y"}]
    place = arena("classification", pairs)
    reader = Reader(place.task, [*place.train, Row({"text": "cat Oak", "label": "x"}, "")])
    known = {word: reader.words[word] for word in ("cat", "oak", "rose")}
    assert reader.ids(place.train[0]).tolist() == [known["oak"], known["rose"], 2, known["cat"]]
    assert reader.ids(Row({"text": "zebra oak"}, "")).tolist() == [1, known["oak"]]
    assert reader.ids(Row({"text": "", "label": "x"}, "")).tolist() == [1]
    network = Network(LSTM(hidden=4, embedding=4), len(reader.words) + 3, 2, each=False).eval()
    rows = [reader.ids(row) for row in place.train]
    with torch.no_grad():
        assert torch.allclose(network(rows)[1], network(rows[1:])[0], atol=1e-6)
