"""`graft combine`: one adapter of several folders, as Python makes of them; the other verbs use it; refusals."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import cases
import graft
import small
from graft import checkpoint, cli
from graft.attach import Adapter, attach, detach, require, use
from graft.checkpoint.peft import export
from graft.errors import BadInput, Refused
from graft.loading import find_base, load_generator

Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Make:
    """`make("one", method, "llama")`: the folder of an adapter that moved, with what `graft tune` keeps."""
    folder, seeds = tmp_path_factory.mktemp("adapters"), iter(range(100))
    loaded = {rows: small.study_of(home, base, rows) for rows, base in (("classes", "bert"), ("answers", "llama"))}

    def saved(name: str, method: Any = None, rows: str = "answers", **extra: Any) -> Path:
        study = loaded[rows]
        adapter = attach(study.model, method or graft.LoRA(rank=2), name)
        cases.move(adapter, seed=next(seeds))
        facts = {"base": str(home / {"classes": "bert", "answers": "llama"}[rows]), "task": study.task.as_dict()}
        made = checkpoint.save(study.model, name, folder / name, tokenizer=study.tokenizer, extra={**facts, **extra})
        detach(study.model, name)
        return made

    return saved


@pytest.fixture(scope="module")
def two(make: Make) -> tuple[str, str]:
    return str(make("one")), str(make("two"))


def outputs(model: Any, name: str) -> torch.Tensor:
    batch = {"input_ids": torch.arange(6, 18).view(2, 6), "attention_mask": torch.ones(2, 6, dtype=torch.long)}
    with use(model, name), torch.no_grad():
        return model(**batch).logits


def beside(home: Path, folders: tuple[str, ...], value: Any) -> tuple[Any, Adapter]:
    """The base with adapters a, b, … and what Python makes of them."""
    model = load_generator(find_base(str(home / "llama")), device="cpu")
    for name, folder in zip("ab", folders, strict=True):
        graft.load(model, folder, name=name)
    return model, attach(model, value, "made")


@pytest.mark.parametrize(("options", "value"), [
    (["--how", "average"], graft.Average(("a", "b"))),
    (["--how", "average", "--weights", "0.25", "0.75"], graft.Average(("a", "b"), weights=(0.25, 0.75))),
    (["--how", "stack"], graft.Stack(("a", "b"))),
    (["--how", "parallel", "--weights", "1.5", "-0.5"], graft.Parallel(("a", "b"), weights=(1.5, -0.5))),
])  # fmt: skip
def test_it_is_what_python_makes_of_them(
    home: Path, two: tuple[str, str], options: list[str], value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["combine", *two, *options, "--output", str(tmp_path / "made"), "--device", "cpu", "--json"]
    assert cli.main(given) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["base"] == str(home / "llama") and "graft generate" in found["command"] and "KiB" in found["stored"]
    model, _ = beside(home, two, value)
    graft.load(model, tmp_path / "made", name="again")
    assert torch.equal(outputs(model, "again"), outputs(model, "made"))


def test_the_other_verbs_use_it(home: Path, two: tuple[str, str], tmp_path: Path) -> None:
    made, base = tmp_path / "made", str(home / "llama")
    found = graft.combine(adapters=two, how="stack", output=made, name="both")
    assert "lora(rank=2)+lora(rank=2)" in found.summary["method"] and checkpoint.read(made).name == "both"
    text = tmp_path / "text.txt"
    text.write_text(" ".join(small.WORDS * 20))
    result = graft.evaluate(
        model=base, adapter=str(made), data=str(home / "answers"), rows=2, general_text=str(text), device="cpu"
    )
    assert len(result.found.systems["adapter"]) == 2
    assert cli.main(["generate", base, "--adapter", str(made), "--prompt", "cat", "--max-new-tokens", "2"]) == 0


def test_heads_are_averaged_and_the_last_one_of_a_stack_stays(home: Path, make: Make, tmp_path: Path) -> None:
    two = tuple(str(make(name, rows="classes")) for name in ("monday", "tuesday"))
    graft.combine(adapters=two, how="average", output=tmp_path / "mean")
    graft.combine(adapters=two, how="stack", output=tmp_path / "stack")
    task = checkpoint.read(tmp_path / "mean").extra["task"]
    assert task == checkpoint.read(two[0]).extra["task"]
    study = small.study_of(home)
    folders = (*map(Path, two), tmp_path / "mean", tmp_path / "stack")
    for name, folder in zip(("a", "b", "mean", "stack"), folders, strict=True):
        graft.load(study.model, folder, name=name)
    of = {name: {p.key: p.part.get_parameter("weight") for p in adapter.placed if p.head}
          for name, adapter in require(study.model).adapters.items()}  # fmt: skip
    for key, weight in of["mean"].items():
        assert torch.allclose(weight, (of["a"][key] + of["b"][key]) / 2) and torch.equal(of["stack"][key], of["b"][key])
    with pytest.raises(Refused, match=r"task head of its own.*--how average"):
        graft.combine(adapters=two, how="parallel", output=tmp_path / "none")


def test_one_of_several_tasks_alone(home: Path, make: Make, tmp_path: Path) -> None:
    method = graft.ProPETL(form="lora", rank=4, tasks=("qa", "summary"), join="or")
    knows = str(make("knows", method))
    model = load_generator(find_base(str(home / "llama")), device="cpu")
    graft.load(model, knows, name="knows")
    graft.combine(adapters=(knows,), how="frozen", task="qa", output=tmp_path / "qa")
    graft.load(model, tmp_path / "qa", name="qa")
    assert not require(model).adapters["qa"].tasks
    with use(model, "knows", "qa"):
        assert torch.allclose(outputs(model, "qa"), outputs(model, "knows"), atol=1e-6)
    for task, said in ((None, "add --task qa"), ("sumary", "no such task; it knows qa, summary .*'summary'")):
        with pytest.raises(BadInput, match=said):
            graft.combine(adapters=(knows,), how="frozen", task=task, output=tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_examples_of_a_new_task(home: Path, make: Make, tmp_path: Path) -> None:
    reads = str(make("reads", graft.HyperTuning(emits="lora", rank=2, width=16, heads=2)))
    rows = tmp_path / "new.jsonl"
    rows.write_text("".join(sorted((home / "answers").glob("*.jsonl"))[0].read_text().splitlines(keepends=True)[:3]))
    given = ["combine", reads, "--how", "frozen", "--examples", str(rows), "--output", str(tmp_path / "new")]
    assert cli.main([*given, "--device", "cpu"]) == 0
    study = small.study_of(home, "llama", "answers")
    features = study.task.features(graft.data.load(str(rows), splits="test").test, study.tokenizer, train=True)
    graft.load(study.model, reads, name="reads")
    graft.load(study.model, tmp_path / "new", name="new")
    attach(study.model, graft.Frozen("reads", examples=tuple(tuple(each["input_ids"]) for each in features)), "made")
    assert torch.allclose(outputs(study.model, "new"), outputs(study.model, "made"), atol=1e-6)
    with pytest.raises(BadInput, match="--examples are for --how frozen, in the place of --task"):
        graft.combine(adapters=(reads,), how="frozen", task="qa", examples=rows, output=tmp_path / "none")


def test_an_adapter_in_the_format_of_peft(home: Path, two: tuple[str, str], tmp_path: Path) -> None:
    model, _ = beside(home, two, graft.Stack(("a", "b")))
    theirs = export(model, "a", tmp_path / "theirs")
    assert not (theirs / "graft.json").exists()
    folders = (str(theirs), two[1])
    graft.combine(adapters=folders, how="average", output=tmp_path / "made", model=str(home / "llama"))
    attach(model, graft.Average(("a", "b")), "mean")
    graft.load(model, tmp_path / "made", name="again")
    assert torch.allclose(outputs(model, "again"), outputs(model, "mean"), atol=1e-6)
    assert checkpoint.read(tmp_path / "made").extra["task"]["kind"] == "generation"


def test_rows_that_one_of_them_was_trained_on_are_not_scored(home: Path, make: Make, tmp_path: Path) -> None:
    from graft import data

    rows, text = tmp_path / "rows.jsonl", tmp_path / "text.txt"
    text.write_text(" ".join(small.WORDS * 20))
    rows.write_text("".join(path.read_text() for path in sorted((home / "answers").iterdir())))
    sets = [data.load(rows, splits=(0.6, 0.2, 0.2), seed=seed) for seed in (0, 1)]
    kept = [{"source": str(rows), "sha256": found.hash, "splits": [0.6, 0.2, 0.2], "seed": seed}
            for seed, found in enumerate(sets)]  # fmt: skip
    two = tuple(str(make(f"seed{seed}", data=about, seed=seed)) for seed, about in enumerate(kept))
    made = graft.combine(adapters=two, how="average", output=tmp_path / "made")
    assert any("different seeds" in note for note in made.notes) and any("not scored" in note for note in made.notes)
    found = graft.evaluate(
        model=str(home / "llama"), adapter=str(tmp_path / "made"), data=str(rows), general_text=str(text)
    ).found
    trained = {row.where for each in sets for row in each.train}
    assert {row.where for row in found.rows} == {row.where for row in sets[0].test} - trained


@pytest.mark.parametrize(("options", "said"), [
    ({"adapters": ("ONE",)}, "takes at least two adapters, and 1 was given"),
    ({"how": "frozen"}, "frozen takes one adapter"),
    ({"adapters": ("ONE",), "how": "frozen"}, "is an ordinary adapter already"),
    ({"adapters": ("ONE",), "how": "frozen", "task": "qa"}, "--task qa: .* has no such task"),
    ({"task": "qa"}, "--task says which task is frozen"),
    ({"how": "stack", "weights": (1.0, 2.0)}, "--weights are for average and parallel"),
    ({"weights": (1.0,)}, "--weights 1.0: 2 adapters take 2"),
    ({"weights": (1.0, float("nan"))}, "2 finite numbers"),
    ({"adapters": ("ONE", "nowhere")}, "there is no folder nowhere"),
    ({"adapters": ("ONE", "ONE")}, "given twice"),
    ({"adapters": ("ONE", "WIDE")}, "lora\\(rank=3\\)|Average adapters of one method"),
    ({"adapters": ("ONE", "CLASSES"), "model": "LLAMA"}, "task head of its own"),
    ({"adapters": ("ONE", "CLASSES"), "how": "stack"}, "made for .*llama, and .*bert.*--model"),
    ({"adapters": ("ONE", "OTHER")}, "are of different tasks: template is"),
    ({"adapters": ("ONE", "PLACE")}, "trains the base's own tensors"),
    ({"adapters": ("CLASSES", "ONE"), "how": "stack", "model": "LLAMA"}, "give the one with the head last"),
    ({"model": "sprout"}, "is not it"),
    ({"output": "ONE"}, "holds one of the adapters"),
    ({"output": "TAKEN"}, "holds something that is no graft adapter"),
])  # fmt: skip
def test_refusals(
    home: Path, make: Make, two: tuple[str, str], options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    made = {
        "ONE": lambda: two[0], "LLAMA": lambda: home / "llama", "TAKEN": lambda: tmp_path,
        "WIDE": lambda: make("wide", graft.LoRA(rank=3)), "CLASSES": lambda: make("classes", rows="classes"),
        "PLACE": lambda: make("place", graft.TopLayers(k=1)),
        "OTHER": lambda: make("other", task={**checkpoint.read(two[0]).extra["task"], "template": "{{ prompt }} :"}),
    }  # fmt: skip

    def put(value: Any) -> Any:
        return tuple(map(put, value)) if isinstance(value, tuple) else str(made[value]()) if value in made else value

    (tmp_path / "file").touch()
    given = {"adapters": two, "how": "average", "output": tmp_path / "made"} | {k: put(v) for k, v in options.items()}
    before = {folder: sorted(Path(folder).iterdir()) for folder in two}
    with pytest.raises((BadInput, Refused), match=said) as error:
        graft.combine(**given)
    assert "\n" not in str(error.value) or "is not it" in said
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert before == {folder: sorted(Path(folder).iterdir()) for folder in two}


@pytest.mark.parametrize("method", ["adapter_fusion", "parallel"])
def test_tuning_says_how_one_is_made(home: Path, method: str) -> None:
    with pytest.raises(BadInput, match="graft combine"):
        graft.tune(model=str(home / "llama"), data=str(home / "answers"), method=method, dry_run=True)
