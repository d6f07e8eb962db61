"""`graft tune`: from rows to an adapter on disk, and what the terminal and the folder say about it."""

import io
import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file

import graft
import small
from graft import cli
from graft.errors import BadInput, NotApplied, Refused

Runs = Callable[[str], Any]


def printed(result: Any) -> str:
    """What the terminal shows, wide enough not to wrap."""
    from rich.console import Console

    shown = io.StringIO()
    result.show(Console(width=200, file=shown))
    return shown.getvalue()


@pytest.mark.parametrize("rows", ["classes", "answers"])
def test_it_helps_and_says_everything(runs: Runs, home: Path, rows: str) -> None:
    result = runs(rows)
    text = printed(result)
    assert result.exit_code == 0 and result.tuned.outcome.helped
    assert re.search(r"coverage +\w+ q: 2 of 2 sites, layers 0-1; \w+ k: 2 of 2 sites", text)
    assert re.search(r"trainable +[\d,]+ \([\d.]+% of the base\)", text) and re.search(r"stored +[\d.]+ KiB", text)
    assert re.search(r"training +80 steps in [\d.]+ s, [\d,]+ tokens/s, 16 rows at once, best at step \d+", text)
    assert re.search(r"peak memory +[\d,]+ MiB \(resident", text)
    assert re.search(r"adapter against base, .*: better by [\d.]+ \([\d.]+ to [\d.]+\), p [=<] 0\.0", text)
    assert len(re.findall(r"^input +\S.*\nreference +\S.*\nbase .*\nadapter +\S", text, re.M)) == 3
    assert f"--adapter {home / 'runs' / rows / 'adapter'}" in text.split("use it: ")[1]


def test_an_untrained_head_is_compared_with_the_most_frequent_label(runs: Runs) -> None:
    result = runs("classes")
    assert result.tuned.floor.base in ("always 'animal'", "always 'plant'") and result.tuned.floor.helped
    assert any("classifier is untrained" in note for note in result.notes)
    assert runs("answers").tuned.floor is None


def test_what_is_not_measured_is_said(runs: Runs) -> None:
    assert any("forgetting is measured on models that predict the next token" in n for n in runs("classes").notes)
    assert not any("forgetting" in note for note in runs("answers").notes)
    assert not any("warning" in note for note in runs("answers").notes)


def test_a_first_loss_far_above_a_guess_is_reported(home: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    folder = small.base(tmp_path, "llama", tie_word_embeddings=False)
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] *= 100
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    result = graft.tune(model=str(folder), data=str(home / "answers"), folder=tmp_path / "run", steps=3, lr=1e-3)
    assert any("a uniform guess over the vocabulary has 3." in note for note in result.notes)


@pytest.mark.parametrize(
    ("able", "dtype", "used"), [(True, "auto", True), (True, "fp32", False), (False, "auto", False)]
)
def test_arithmetic_is_in_bf16_where_the_cpu_has_it(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, able: bool, dtype: str, used: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": able, "avx2": True})
    result = graft.tune(
        model=str(home / "bert"), data=str(home / "classes"), folder=tmp_path, steps=3, lr=1e-2, dtype=dtype,
        device="cpu",
    )  # fmt: skip
    record = json.loads((tmp_path / "adapter" / "graft.json").read_text())["extra"]["training"]
    assert record["autocast"] is used and ("bf16 arithmetic" in printed(result)) is used
    assert next(iter(load_file(tmp_path / "adapter" / "adapter.safetensors").values())).dtype == torch.float32


def test_the_folder_holds_the_run(runs: Runs, home: Path) -> None:
    result = runs("classes")
    folder = home / "runs" / "classes"
    assert {path.name for path in folder.iterdir()} == {
        "recipe.yaml", "metrics.jsonl", "items.parquet", "environment.json", "checkpoints", "adapter",
    }  # fmt: skip
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 81))
    assert [line["step"] for line in lines if "validation_loss" in line] == [20, 40, 60, 80]
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["versions"]["torch"] == version("torch")
    assert environment["threads"] == torch.get_num_threads()
    record = json.loads((folder / "adapter" / "graft.json").read_text())["extra"]
    assert (
        record["task"]["labels"] == ["animal", "plant"] and record["seed"] == 0 and len(record["data"]["sha256"]) == 64
    )
    assert (
        record["scores"]["metrics"]["accuracy"]["other"]["value"]
        == result.as_json()["scores"]["metrics"]["accuracy"]["other"]["value"]
    )


def test_items_are_the_scores(runs: Runs, home: Path) -> None:
    result = runs("classes")
    items = pq.read_table(home / "runs" / "classes" / "items.parquet").to_pylist()
    rows = [json.loads(line) for line in (home / "classes" / "test.jsonl").read_text().splitlines()]
    assert [(item["input"], item["reference"]) for item in items] == [(row["text"], row["label"]) for row in rows]
    assert [item["where"] for item in items] == [f"{home}/classes/test.jsonl:{n + 1}" for n in range(len(rows))]
    right = [item["adapter_output"] == item["reference"] for item in items]
    assert [item["adapter_accuracy"] for item in items] == [100.0 * hit for hit in right]
    score = result.tuned.outcome.comparisons["accuracy"]
    assert score.other.value == pytest.approx(100 * sum(right) / len(right))
    flips = [item["item"] for item in items if item["base_accuracy"] < item["adapter_accuracy"]]
    assert score.flips.improved == flips


def test_the_adapter_does_what_was_measured(runs: Runs, home: Path) -> None:
    runs("classes")
    study = small.study_of(home)
    graft.load(study.model, home / "runs" / "classes" / "adapter")
    from graft.scoring import score

    records = score(study.model, study.tokenizer, study.task, study.test)
    items = pq.read_table(home / "runs" / "classes" / "items.parquet").to_pylist()
    assert [record["output"] for record in records] == [item["adapter_output"] for item in items]
    assert [record["loss"] for record in records] == pytest.approx([item["adapter_loss"] for item in items], abs=1e-5)


def test_the_recipe_repeats_the_run(runs: Runs, home: Path, tmp_path: Path) -> None:
    runs("classes")
    recipe = yaml.safe_load((home / "runs" / "classes" / "recipe.yaml").read_text())
    recipe["folder"] = str(tmp_path / "again")
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert cli.main(["tune", str(tmp_path / "recipe.yaml")]) == 0
    first, second = (
        load_file(p / "adapter" / "adapter.safetensors") for p in (home / "runs/classes", tmp_path / "again")
    )
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    assert yaml.safe_load((tmp_path / "again" / "recipe.yaml").read_text()) == recipe


@pytest.mark.parametrize(("options", "said"), [
    ({"method": "pfeiffer", "optimizer": "lora+"}, "pfeiffer has none"),
    ({"method": "lora_plus", "optimizer": "lora+"}, "rates of its own"),
    ({"method": "lora", "optimizer": "mezo", "objective": "acuracy"}, "no metric is called 'acuracy'"),
])  # fmt: skip
def test_a_dry_run_refuses_what_a_run_would(home: Path, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    given = {"model": str(home / "bert"), "data": str(home / "classes"), "folder": tmp_path / "run", "dry_run": True}
    with pytest.raises((BadInput, Refused), match=said):
        graft.tune(**given, **options)


def test_a_dry_run_writes_nothing(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "run"
    arguments = [
        "tune",
        str(home / "llama"),
        str(home / "answers"),
        "--folder",
        str(folder),
        "--dry-run",
        "--show-mask",
        "1",
    ]
    assert cli.main(arguments) == 0
    told = capsys.readouterr().out
    assert "⟦kind : " in told and "trainable" in told and not folder.exists()


def test_an_adapter_that_does_nothing_is_no_result(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graft.training.trainer import GraftTrainer

    compute = GraftTrainer.compute_loss
    monkeypatch.setattr(GraftTrainer, "compute_loss", lambda *args, **more: compute(*args, **more) * 0)
    with pytest.raises(NotApplied, match="has moved"):
        graft.tune(model=str(home / "bert"), data=str(home / "classes"), folder=tmp_path, steps=4)
    assert not (tmp_path / "adapter").exists()


def test_forgetting_is_measured_on_general_text(home: Path, tmp_path: Path) -> None:
    text = tmp_path / "general.txt"
    text.write_text("the cat sees the dog in the garden.\n" * 200)
    result = graft.tune(
        model=str(home / "llama"), data=str(home / "answers"), folder=tmp_path / "run", steps=4, lr=1e-2, batch=8,
        general_text=str(text),
    )  # fmt: skip
    forgot = result.tuned.forgot.comparisons["loss"]
    assert forgot.items > 1 and forgot.base.value != forgot.other.value
    assert f"adapter against base on {text}, loss" in printed(result)
    with pytest.raises(Refused, match="BertForSequenceClassification does not"):
        graft.tune(model=str(home / "bert"), data=str(home / "classes"), folder=tmp_path / "no", general_text=str(text))


def test_forgetting_is_measured_unasked(runs: Runs) -> None:
    assert runs("classes").tuned.forgot is None
    forgot = runs("answers").tuned.forgot
    assert forgot.comparisons["loss"].items == 24 and forgot.verdict in printed(runs("answers"))
    assert forgot.verdict.startswith("adapter against base on the language reference of Python 3.")


def test_tensorboard_gets_the_loss(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    graft.tune(
        model=str(home / "bert"),
        data=str(home / "classes"),
        folder=tmp_path,
        steps=4,
        lr=1e-2,
        report_to=("tensorboard",),
    )
    (events,) = {path.parent for path in tmp_path.rglob("events.out.tfevents.*")}
    seen = EventAccumulator(str(events))
    seen.Reload()
    assert [event.step for event in seen.Scalars("train/loss")] == [1, 2, 3, 4]


def rows_of(task: str) -> list[dict[str, Any]]:
    """A few rows of a task."""
    made: dict[str, Callable[[str, str], dict[str, Any]]] = {
        "regression": lambda text, kind: {"text": text, "label": len(text) / 50 + 0.01},
        "tagging": lambda text, kind: {
            "tokens": text.split(),
            "tags": ["B-A" if w in small.ANIMALS else "B-P" if w in small.PLANTS else "O" for w in text.split()],
        },
        "question_answering": lambda text, kind: {
            "question": f"the {kind} is", "context": text, "answers": {"text": [text.split()[0]], "answer_start": [0]},
        },
        "multiple_choice": lambda text, kind: {
            "question": text, "choices": ["animal", "plant"], "answer": 0 if kind == "animal" else 1,
        },
        "chat": lambda text, kind: {
            "messages": [{"role": "user", "content": text}, {"role": "assistant", "content": kind}]
        },
        "language_modeling": lambda text, kind: {"text": text},
    }  # fmt: skip
    return [made[task](*each) for each in small.sentences(40, 3)]


@pytest.mark.parametrize(
    ("task", "kind"),
    [("regression", "bert"), ("regression", "llama"), ("tagging", "bert"), ("question_answering", "bert"),
     ("multiple_choice", "bert"), ("chat", "llama"), ("language_modeling", "llama")],
)  # fmt: skip
def test_every_task_goes_from_rows_to_an_evaluated_adapter(home: Path, tmp_path: Path, task: str, kind: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in rows_of(task)))
    tuned = graft.tune(
        model=str(home / kind), data=str(rows), task=task, folder=tmp_path / "run", steps=4, batch=8, lr=1e-2,
        length=48, splits=(0.5, 0.2, 0.3),
    ).tuned  # fmt: skip
    assert bool(tuned.adapter.counts.head) == (kind == "bert" or task == "regression")
    again = graft.evaluate(model=str(home / kind), data=str(rows), adapter=str(tuned.folder)).found
    assert again.task == type(again.task)(**vars(again.task)) and again.task.kind == task
    assert again.outcome.verdict == tuned.outcome.verdict


NAN = float("nan")


def test_rows_and_virtual_tokens_share_the_positions(home: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"model": str(home / "bert"), "data": str(home / "classes"), "steps": 3}
    method, most = graft.PrefixTuning(tokens=54), 10  # of the 64 positions of this model
    told = "54 virtual tokens of the method are among the 64 positions"
    with pytest.raises(BadInput, match=rf"{told}.*, and rows have up to 1\d tokens: use --length {most}"):
        graft.tune(**options, method=method, length=32, folder=tmp_path / "asked", dry_run=True)
    result = graft.tune(**options, method=method, folder=tmp_path / "default")
    assert any(f"rows have {most} tokens at most" in note for note in result.notes)
    record = json.loads((result.tuned.folder / "graft.json").read_text())["extra"]
    assert record["task"]["max_length"] == most
    with pytest.raises(BadInput, match="leaves no room for a row: use fewer"):
        graft.tune(**options, method=graft.PrefixTuning(tokens=60), folder=tmp_path / "none", dry_run=True)


@pytest.mark.parametrize(("kind", "rows", "length"), [("bert", "classes", 9), ("llama", "answers", 12)])
def test_the_share_of_cut_rows_is_told(home: Path, kind: str, rows: str, length: int) -> None:
    def notes(length: int | None) -> str:
        options = {"model": str(home / kind), "data": str(home / rows), "dry_run": True, "allow": ("cut", "masked")}
        return "\n".join(graft.tune(**options, length=length).notes)

    # Beside its words a text has [CLS] and [SEP]; a prompt has its completion and the end.
    texts = [row["text"] for row in small.lines(home / "classes" / "train.jsonl")]
    found = re.search(rf"of the train rows \((\d+) of 64 looked at\) are longer than {length} tokens", notes(length))
    assert found is not None
    if kind == "bert":
        assert int(found[1]) == sum(len(text.split()) + 2 > length for text in texts)
    assert "are cut" not in notes(None)


def test_a_head_that_moves_alone_is_no_adapter(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from graft.training.watch import Watch

    before = Watch.on_pre_optimizer_step

    def still(self: Watch, *arguments: Any, **more: Any) -> None:
        for placed in self.trainer.adapter.placed:
            for parameter in placed.part.parameters():
                parameter.grad = parameter.grad if placed.head else None
        before(self, *arguments, **more)

    monkeypatch.setattr(Watch, "on_pre_optimizer_step", still)
    with pytest.raises(NotApplied, match="has moved; their gradients are all zero or missing"):
        graft.tune(model=str(home / "bert"), data=str(home / "classes"), folder=tmp_path, steps=4, lr=1e-2)
