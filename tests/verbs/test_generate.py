"""`graft generate`: text through the adapter's template, streamed, with the base beside it."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import graft
import small
from graft import cli
from graft.errors import BadInput, Refused

Runs = Callable[[str], Any]


@pytest.fixture
def adapter(runs: Runs) -> str:
    return str(runs("answers").tuned.folder)


def test_one_prompt_is_answered_as_it_was_trained(home: Path, adapter: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", str(home / "llama"), "--adapter", adapter, "--prompt", "cat dog cat bird in the field"]
    assert cli.main(arguments) == 0
    assert capsys.readouterr().out.strip() == "kind : animal"
    assert cli.main([*arguments, "--json", "--base"]) == 0
    (answer,) = json.loads(capsys.readouterr().out)["answers"]
    assert answer["adapter"].strip() == "kind : animal" != answer["base"].strip()
    assert answer["prompt"] == arguments[-1]


def test_it_writes_what_scoring_saw(home: Path, runs: Runs, adapter: str, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    runs("answers")
    items = pq.read_table(home / "runs" / "answers" / "items.parquet").to_pylist()
    rows = small.lines(home / "answers" / "test.jsonl")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": row["prompt"]}) + "\n" for row in rows))
    found = graft.generate(model=str(home / "llama"), adapter=adapter, prompts=prompts, base=True).as_json()["answers"]
    assert [answer["adapter"].strip() for answer in found] == [item["adapter_output"] for item in items]
    assert [answer["base"].strip() for answer in found] == [item["base_output"] for item in items]


def test_text_comes_in_pieces_under_its_name(home: Path, adapter: str) -> None:
    result = graft.generate(
        model=str(home / "llama"), adapter=adapter, prompt="oak rose fern moss in the hill", base=True
    )
    pieces = {system: list(parts) for system, parts in result.speaker.speak("oak rose fern moss in the hill")}
    assert list(pieces) == ["base", "adapter"] and len(pieces["adapter"]) > 1
    shown = io.StringIO()
    result.show(Console(file=shown, width=80))
    base, tuned = shown.getvalue().splitlines()
    assert base.startswith("base: ") and tuned.startswith("adapter: kind : plant")


def test_lines_are_read_until_an_empty_one(home: Path, adapter: str, typed: Callable[[str], None]) -> None:
    typed("oak rose fern moss in the hill\ncat dog cow bird in the hill\n\nignored\n")
    found = graft.generate(model=str(home / "llama"), adapter=adapter).as_json()["answers"]
    assert [answer["adapter"].strip() for answer in found] == ["kind : plant", "kind : animal"]


def test_a_file_of_lines(home: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("the cat\n\nthe dog\n")
    result = graft.generate(model=str(home / "llama"), prompts=tmp_path / "prompts.txt", max_new_tokens=3)
    assert [answer["prompt"] for answer in result.as_json()["answers"]] == ["the cat", "the dog"]


def test_sampling_follows_the_seed(home: Path) -> None:
    def written(**how: Any) -> str:
        result = graft.generate(model=str(home / "llama"), prompt="the cat", max_new_tokens=12, **how)
        return result.as_json()["answers"][0]["base"]

    assert written(temperature=1.0, seed=3) == written(temperature=1.0, seed=3) != written(temperature=1.0, seed=4)
    assert written(temperature=1.0, top_k=1) == written() == written(beams=1)
    assert isinstance(written(beams=3), str)


def test_a_template_with_columns_takes_rows(home: Path, tmp_path: Path) -> None:
    rows = small.lines(home / "classes" / "train.jsonl")
    data = tmp_path / "rows.jsonl"
    cells = [{"thing": row["text"], "place": "river", "completion": row["label"]} for row in rows]
    data.write_text("".join(json.dumps(row) + "\n" for row in cells))
    tuned = graft.tune(
        model=str(home / "llama"), data=str(data), template="the {{ thing }} by the {{ place }} is", steps=4, lr=1e-2,
        folder=tmp_path / "run", length=32, columns="completion=completion",
    ).tuned  # fmt: skip
    where = {"model": str(home / "llama"), "adapter": str(tuned.folder)}
    with pytest.raises(BadInput, match="needs the columns place, thing"):
        graft.generate(prompt="cat", **where).as_json()
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"thing": "cat", "place": "hill"}\n')
    assert "adapter" in graft.generate(prompts=prompts, **where).as_json()["answers"][0]
    prompts.write_text('{"thing": "cat"}\n')
    with pytest.raises(BadInput, match="needs the columns place, which a prompt lacks"):
        graft.generate(prompts=prompts, **where).as_json()
    prompts.write_text('{"thing": \n')
    with pytest.raises(BadInput, match=r"prompts\.jsonl:1: not JSON"):
        graft.generate(prompts=prompts, **where)


def test_a_chat_remembers_its_turns(home: Path, tmp_path: Path, typed: Callable[[str], None]) -> None:
    talk = [
        {"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label"]}]}
        for row in small.lines(home / "classes" / "train.jsonl")
    ]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talk))
    tuned = graft.tune(
        model=str(home / "llama"), data=str(tmp_path / "talk.jsonl"), steps=4, lr=1e-2, folder=tmp_path / "run"
    ).tuned
    typed("cat dog\nrose oak\n")
    result = graft.generate(model=str(home / "llama"), adapter=str(tuned.folder), max_new_tokens=3)
    assert len(result.as_json()["answers"]) == 2
    roles = [turn["role"] for turn in result.speaker.turns["adapter"]]
    assert roles == ["user", "assistant", "user", "assistant"]


def test_what_cannot_write_is_refused(home: Path, runs: Runs) -> None:
    with pytest.raises(Refused, match="tuned for classification"):
        graft.generate(model=str(home / "bert"), adapter=str(runs("classes").tuned.folder), prompt="cat")
    with pytest.raises(Refused, match="no language model's head"):
        graft.generate(model=str(home / "bert"), prompt="cat")
    with pytest.raises(BadInput, match="not both"):
        graft.generate(model=str(home / "llama"), prompt="cat", prompts=Path("x"))
    with pytest.raises(BadInput, match="give an --adapter"):
        graft.generate(model=str(home / "llama"), prompt="cat", base=True)
    with pytest.raises(BadInput, match="temperature above 0"):
        graft.generate(model=str(home / "llama"), prompt="cat", top_k=5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"temperature": float("nan")}, "temperature must be a finite number"), ({"seed": -1}, "seed must be at least 0")],
)
def test_numbers_that_do_not_serve_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        graft.generate(model="no-such-model", prompt="a", **wrong)


@pytest.mark.parametrize("name", ["none.jsonl", "none.txt"])
def test_a_file_without_prompts_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("\n")
    with pytest.raises(BadInput, match="there are no prompts in it"):
        graft.generate(model="no-such-model", prompts=tmp_path / name)
