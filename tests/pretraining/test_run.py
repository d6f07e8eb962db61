"""Whole runs on tiny models: objectives learn, a stopped or killed run ends in the same tensors, errors come early."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import cases
import graft
from graft.errors import BadInput
from graft.pretraining import loop, progress
from graft.pretraining.loop import factor

LLAMA = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 64, "num_attention_heads": 2,
    "num_key_value_heads": 1, "max_position_embeddings": 64, "attention_dropout": 0.1}  # fmt: skip
BERT = {"hidden_size": 32, "num_hidden_layers": 1, "intermediate_size": 64, "num_attention_heads": 2,
    "max_position_embeddings": 64}  # fmt: skip
T5 = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 1, "num_heads": 2}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    words = [
        first + last
        for first in ["ba", "co", "di", "fu", "ge", "hi", "jo", "ka", "lu", "me"]
        for last in ["n", "rt", "st", "x", "lor", "ven"]
    ]
    for number in range(60):
        lines = [" ".join(words[(number * k + k * k) % 60] for k in range(line, line + 9)) for line in range(25)]
        (folder / f"{number}.txt").write_text("\n".join(lines) + "\n")
    return folder


def options(folder: Path, output: Path, **changes: Any) -> dict[str, Any]:
    chosen = {
        "text": [folder], "output": output, "config": "llama", "fields": LLAMA, "vocabulary": 300, "length": 32,
        "batch": 4, "accumulate": 2, "held_out": 0.1, "rate": 3e-3, "threads": 1, "bf16": False,
    }  # fmt: skip
    return {**chosen, **changes}


class Stopped(Exception):
    pass


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    def arm(step: int | None) -> None:
        monkeypatch.undo()
        if step is not None:
            said = progress.Reporter.step

            def stop(self: Any, told: Any) -> None:
                said(self, told)
                if told.step == step:
                    raise Stopped

            monkeypatch.setattr(progress.Reporter, "step", stop)

    return arm


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_run_ends_in_the_same_tensors(text: Path, tmp_path: Path, stop_at: Any, optimizer: str) -> None:
    how = {"tokens": 3000, "every": 1e-9, "optimizer": optimizer, "short": 16, "store": "fp32"}
    whole = graft.pretrain(**options(text, tmp_path / "whole", **how)).outcome
    for step in (3, 7):
        stop_at(step)
        with pytest.raises(Stopped):
            graft.pretrain(**options(text, tmp_path / "parts", resume=step > 3, **how))
    stop_at(None)
    parts = graft.pretrain(**options(text, tmp_path / "parts", resume=True, **how)).outcome
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(first[name], second[name]) for name in first) and first.keys() == second.keys()
    assert (whole.loss, whole.seen_tokens, whole.steps) == (parts.loss, parts.seen_tokens, parts.steps)


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_tensors(text: Path, tmp_path: Path) -> None:
    arguments = ["--text", str(text), "--config", "llama", "--vocabulary", "300", "--length", "32", "--batch", "4",
        "--tokens", "40000", "--held-out", "0.1", "--every", "1e-9", "--threads", "1"]  # fmt: skip
    for name, value in LLAMA.items():
        arguments += [f"--fields.{name}", str(value)]

    def start(output: Path, *more: str) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, "-m", "graft", "pretrain", *arguments, "--output", str(output), *more])

    assert start(tmp_path / "whole").wait(110) == 0
    for least in (2, 20):
        process = start(tmp_path / "killed", "--resume")
        while not any(int(p.name[5:]) >= least for p in (tmp_path / "killed/work/snapshots").glob("step-*")):
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(tmp_path / "killed", "--resume").wait(110) == 0
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("objective", "config", "fields", "kind", "vocabulary"),
    cases.some([
        ("causal", "llama", LLAMA, "bpe", 300), ("masked", "bert", BERT, "wordpiece", 110),
        ("span", "t5", T5, "unigram", 240), ("mixture", "llama", LLAMA, "bpe", 420),
        ("prefix", "llama", LLAMA, "bpe", 300), ("mixture", "t5", T5, "bpe", 420),
    ], 4),
)  # fmt: skip
def test_every_objective_learns(
    text: Path, tmp_path: Path, objective: str, config: str, fields: dict, kind: str, vocabulary: int
) -> None:
    how = {
        "objective": objective,
        "config": config,
        "fields": fields,
        "kind": kind,
        "vocabulary": vocabulary,
        "rate": 1e-2,
    }
    untrained = graft.pretrain(**options(text, tmp_path / "a", tokens=1, **how)).outcome
    trained = graft.pretrain(**options(text, tmp_path / "b", tokens=12000, **how)).outcome
    assert trained.loss < untrained.loss - 0.3
    assert (trained.bits_per_byte is not None) == (objective == "causal")


def test_the_finished_folder_is_an_ordinary_model(text: Path, tmp_path: Path) -> None:
    outcome = graft.pretrain(**options(text, tmp_path, tokens=6000, rate=1e-2)).outcome
    model, tokenizer = (kind.from_pretrained(outcome.model) for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.dtype == torch.bfloat16 and model.num_parameters() == outcome.parameters
    assert len(tokenizer) == outcome.vocabulary == model.config.vocab_size
    lines = [path.read_text() for path in sorted(text.glob("*.txt"))]
    ids = tokenizer(lines[0][:200], return_tensors="pt").input_ids[:, :32]
    assert model.float()(ids, labels=ids).loss < 5.0 < torch.log(torch.tensor(300.0))
    rows = (tmp_path / "work" / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == outcome.steps
    card = (tmp_path / "model" / "README.md").read_text()
    assert f"{outcome.loss:.4f} nats" in card and "tokens: 6000" in card and "resume" not in card
    assert "## Training text" not in card


def test_a_card_of_gathered_text_lists_packages_and_licences(text: Path, tmp_path: Path) -> None:
    gathered = tmp_path / "gathered"
    shutil.copytree(text, gathered)
    package = {"name": "boxes", "version": "1.2", "licence": "MIT", "files": 60, "bytes": 12345}
    (gathered / "manifest.json").write_text(json.dumps({"packages": [package]}))
    outcome = graft.pretrain(**options(text, tmp_path / "out", text=[], gather=gathered, tokens=500)).outcome
    assert "| boxes | 1.2 | MIT | 60 | 12 |" in (Path(outcome.model) / "README.md").read_text()


def test_bits_per_byte_is_the_loss_of_the_whole_text(text: Path, tmp_path: Path) -> None:
    outcome = graft.pretrain(**options(text, tmp_path, tokens=2000)).outcome
    model, tokenizer = (kind.from_pretrained(outcome.model) for kind in (AutoModelForCausalLM, AutoTokenizer))
    from graft.pretraining.documents import find_documents

    held_out = [path.read_text() for _, path in find_documents([text], 0.1).held_out]
    ids = torch.tensor([i for t in held_out for i in [*tokenizer(t).input_ids, tokenizer.eos_token_id]])
    rows = ids[: len(ids) // 32 * 32].view(-1, 32)
    loss = model.float()(rows, labels=rows).loss.item()
    size = sum(len(t.encode()) for t in held_out)
    expected = loss * len(ids) / size / torch.log(torch.tensor(2.0)).item()
    assert outcome.bits_per_byte == pytest.approx(expected, rel=0.02)  # rows may start a few tokens later, in bf16


def test_a_time_budget_ends_the_run(text: Path, tmp_path: Path) -> None:
    outcome = graft.pretrain(**options(text, tmp_path, minutes=0.01)).outcome
    assert outcome.steps > 0 and 0.01 <= outcome.minutes < 0.1


def test_dry_run_tells_sizes_and_trains_nothing(text: Path, tmp_path: Path) -> None:
    outcome = graft.pretrain(**options(text, tmp_path, dry_run=True)).outcome
    assert (
        outcome.parameters > 10_000 and outcome.training_tokens > 1000 and outcome.steps == 0 and outcome.loss is None
    )
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "no budget: give --tokens, --minutes or both"),
        ({"tokens": 0, "batch": 0, "held_out": 1.0},
         "batch must be above 0, not 0; tokens must be above 0.*held_out must lie"),
        ({"tokens": 9, "text": []}, "no folder given"),
        ({"tokens": 9, "vocabulary": 9000}, "too large for this text"),
        ({"tokens": 9, "length": 65}, "more than the model's 64 positions"),
        ({"tokens": 9, "config": "lama"}, "did you mean 'llama'"),
        ({"tokens": 9, "fields": {"hidden_sise": 3}}, "llama has no field 'hidden_sise', did you mean 'hidden_size'"),
        ({"tokens": 9, "objective": "masked", "kind": "wordpiece", "vocabulary": 110}, "'masked' does not fit llama"),
        ({"tokens": 9, "config": "t5", "fields": T5}, "'causal' does not fit t5"),
        ({"tokens": 9, "text": None}, "no text file"),
        ({"tokens": 9, "fields": {**LLAMA, "max_position_embeddings": 10**6}, "length": 10**5}, "fewer than one row"),
        ({"tokens": 9, "config": "gpt2", "fields": {"n_embd": 64, "n_head": 5}}, "gpt2 cannot be built"),
        ({"tokens": 9, "device": "gpu"}, "Give cpu, cuda"),
        ({"tokens": 9, "short": 16, "objective": "prefix"}, "short rows are for"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_said_before_training(text: Path, tmp_path: Path, changes: dict, said: str) -> None:
    if "text" in changes and changes["text"] is None:
        (tmp_path / "empty").mkdir()
        changes = {**changes, "text": [tmp_path / "empty"]}
    with pytest.raises(BadInput, match=said):
        graft.pretrain(**options(text, tmp_path / "out", **changes))


def test_a_run_is_not_overwritten_nor_mixed_with_other_settings(text: Path, tmp_path: Path) -> None:
    graft.pretrain(**options(text, tmp_path, tokens=500))
    with pytest.raises(BadInput, match=r"holds a run \(step-.*add --resume"):
        graft.pretrain(**options(text, tmp_path, tokens=500))
    with pytest.raises(BadInput, match=r"rate: 0\.003 then, 0\.1 now"):
        graft.pretrain(**options(text, tmp_path, tokens=500, rate=0.1, resume=True))


def test_a_model_that_ignores_the_prefix_mask_is_refused(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import LlamaForCausalLM

    forward = LlamaForCausalLM.forward
    monkeypatch.setattr(LlamaForCausalLM, "forward", lambda self, attention_mask=None, **rest: forward(self, **rest))
    with pytest.raises(graft.errors.Refused, match="does not read a source in both directions"):
        graft.pretrain(**options(text, tmp_path, tokens=500, objective="prefix"))


def test_loss_that_is_not_finite_stops_the_run(text: Path, tmp_path: Path) -> None:
    with pytest.raises(graft.errors.Refused, match=r"step \d+: loss .*Lower --rate"):
        graft.pretrain(**options(text, tmp_path, tokens=20000, rate=1e30))


def test_the_rate_rises_then_falls_to_a_tenth() -> None:
    values = [factor(share / 1000, 0.1) for share in range(1001)]
    top = values.index(max(values))
    assert top == 100 and values[100] == 1.0
    assert values[:101] == sorted(values[:101]) and values[100:] == sorted(values[100:], reverse=True)
    assert values[-1] == pytest.approx(0.1) and values[550] == pytest.approx(0.55)
    assert loop.factor(0.0, 0.0) == 1.0
