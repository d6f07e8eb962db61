"""Standings: what is written is what the trials gave, and adds up."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

import graft


@pytest.fixture(scope="module")
def result(home: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two sizes, a sweep, an ablation: all that a comparison draws."""
    return graft.compare(
        model=(str(home / "bert"),), data=(str(home / "classes"),), contestants=("majority", "tfidf", "lora"),
        settings={"lora": {"rank": (1, 2), "lr": (0.02,)}}, sizes=(20, 0), seeds=(0, 1), trials=1, steps=10, batch=8,
        checks=1, length=32, dtype="fp32", ablate="layers", folder=tmp_path_factory.mktemp("standings") / "run",
    )  # fmt: skip


def test_scores_are_the_mean_over_seeds_of_the_stored_records(result: Any) -> None:
    for board in result.standings["boards"]:
        for line in board["lines"]:
            scores = []
            for run in line["runs"]:
                lines = (result.folder / "trials" / run["trial"] / "records.jsonl").read_text().splitlines()
                records = [json.loads(each) for each in lines]
                scores.append(100 * sum(each["output"] == each["reference"] for each in records) / len(records))
                assert run["score"] == pytest.approx(scores[-1])
            assert line["score"]["value"] == pytest.approx(np.mean(scores))


def test_items_hold_every_answer(result: Any) -> None:
    rows = pq.read_table(result.folder / "items.parquet").to_pylist()
    assert len(rows) == 24 * 2 and {row["board"] for row in rows} == {"classes-20", "classes-all"}
    for board in result.standings["boards"]:
        own = [row for row in rows if row["board"] == board["id"]]
        for line in board["lines"]:
            name = line["contestant"]
            assert np.mean([row[f"{name}.score"] for row in own]) == pytest.approx(line["score"]["value"])
            assert all(row[f"{name}.output"] in ("animal", "plant") for row in own)


def test_a_sweep_has_a_point_for_each_value_and_board(result: Any) -> None:
    assert [(each["contestant"], each["board"]) for each in result.standings["sweeps"]] == [
        ("lora", "classes-20"), ("lora", "classes-all")
    ]  # fmt: skip
    first = result.standings["sweeps"][0]
    assert first["axes"] == [{"name": "rank", "values": [1, 2]}]
    assert first["points"][1]["trainable"] > first["points"][0]["trainable"]


def test_an_ablation_has_every_span_of_layers(result: Any) -> None:
    found = result.standings["ablations"][0]
    assert [(each["first"], each["last"]) for each in found["loss"]] == [(0, 0), (0, 1), (1, 1)]
    assert all(each["change"] == pytest.approx(each["score"] - found["whole"]) for each in found["loss"])


def test_costs_of_what_is_merged_and_of_what_cannot_be(compared: Callable[..., Any]) -> None:
    lines = compared(contestants=("lora", "pfeiffer"), seeds=(0,)).standings["boards"][0]["lines"]
    lora, pfeiffer = (line["costs"] for line in lines)
    assert lora["latency_merged_ms"] > 0 and pfeiffer["latency_merged_ms"] is None
    for costs in (lora, pfeiffer):
        assert costs["trainable"] > 0 and costs["stored_bytes"] > 0 and costs["flops"] > 0 and costs["latency_ms"] > 0


def test_adapters_transfer_to_data_with_the_same_labels(home: Any, tmp_path: Any) -> None:
    import small

    rows = (str(home / "classes"), str(small.classes(tmp_path / "other", (40, 12, 12))))
    result = graft.compare(
        model=(str(home / "bert"),), data=rows, contestants=("head",), seeds=(0,), trials=1, steps=5, checks=1,
        length=32, dtype="fp32", transfer=True, folder=tmp_path / "run", keep=False,
    )  # fmt: skip
    scores = result.standings["transfer"][0]["scores"]
    for at, board in enumerate(result.standings["boards"]):
        assert scores[at][at] == board["lines"][0]["score"]["value"]
    assert all(0 <= each <= 100 for row in scores for each in row)


def test_a_generator_forgets_or_not(home: Any, compared: Callable[..., Any]) -> None:
    lines = compared("llama", "answers", contestants=("zero_shot", "lora"), seeds=(0,)).standings["boards"][0]["lines"]
    assert lines[1]["costs"]["forgetting"]["change"]["value"] is not None and lines[0]["status"] == "done"
