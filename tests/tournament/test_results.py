"""The folder of a comparison: written whole or not at all, held by one, cleared of what a killed one left."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from graft.errors import BadInput
from graft.tournament import results
from graft.tournament.running import Finished

DONE = Finished({"status": "done", "error": None, "score": 91.5, "seconds": 0.5},
                [{"item": 0, "output": "ä\u2028b", "reference": "b"}, {"item": 1, "output": "", "loss": 0.25}],
                [{"step": 1, "loss": 0.5, "seed": 0}])  # fmt: skip


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    result = results.write(tmp_path, "ab12", {"contestant": {"method": "lora"}, "seed": 0}, DONE)
    assert results.finished(tmp_path) == {"ab12": result} and result["seed"] == 0 and result["score"] == 91.5
    assert results.records(tmp_path, "ab12") == DONE.records and results.curve(tmp_path, "ab12") == DONE.curve


def test_the_result_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    monkeypatch.setattr(results, "write_text", lambda path, text: written.append(path.name))
    results.write(tmp_path, "ab12", {}, DONE)
    assert sorted(written[:-1]) == ["curve.jsonl", "records.jsonl"] and written[-1] == "result.json"


def test_a_trial_without_a_result_is_not_finished(tmp_path: Path) -> None:
    results.write(tmp_path, "ab12", {}, DONE)
    (tmp_path / "trials/ab12/result.json").unlink()
    assert results.finished(tmp_path) == {} and results.finished(tmp_path / "nowhere") == {}


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}", '{"score": 1}', "\xff"])
def test_a_torn_result_is_told_with_all_the_others(tmp_path: Path, text: str) -> None:
    results.write(tmp_path, "good", {}, DONE)
    for name in ("one", "two"):
        results.write(tmp_path, name, {}, DONE)
        (tmp_path / f"trials/{name}/result.json").write_text(text, encoding="latin-1")
    with pytest.raises(BadInput) as told:
        results.finished(tmp_path)
    assert "trials/one/result.json" in str(told.value) and "trials/two/result.json" in str(told.value)
    assert "good" not in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize("text", [None, '{"item": 0}\n{"it', "\xff\n"])
def test_records_that_are_torn_or_gone_are_told(tmp_path: Path, text: str | None) -> None:
    results.write(tmp_path, "ab12", {}, DONE)
    path = tmp_path / "trials/ab12/records.jsonl"
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="latin-1")
    with pytest.raises(BadInput, match=r"records\.jsonl cannot be read.*Remove its folder"):
        results.records(tmp_path, "ab12")


def test_one_has_the_folder_and_whoever_is_killed_lets_it_go(tmp_path: Path) -> None:
    hold = f"import fcntl, time; file = open({str(tmp_path / results.LOCK)!r}, 'a'); fcntl.flock(file, fcntl.LOCK_EX)"
    with subprocess.Popen([sys.executable, "-c", f"{hold}; print(flush=True); time.sleep(60)"],
                          stdout=subprocess.PIPE) as other:  # fmt: skip
        assert other.stdout and other.stdout.readline()
        with pytest.raises(BadInput, match="another comparison is running"), results.claimed(tmp_path):
            raise AssertionError("two have the folder")
        other.kill()
    with results.claimed(tmp_path), results.claimed(tmp_path / "another"):
        pass


def test_what_was_half_written_goes_and_the_rest_stays(tmp_path: Path) -> None:
    result = results.write(tmp_path, "ab12", {}, DONE)
    half = tmp_path / "trials/cd34/.adapter.x1y2z3"
    half.mkdir(parents=True)
    (half / "adapter.safetensors").write_bytes(b"half")
    (tmp_path / "trials/ab12/notes.txt").write_text("a user's own\n")
    (tmp_path / ".git").mkdir()
    with results.claimed(tmp_path):
        assert not half.exists() and (tmp_path / "trials/ab12/notes.txt").exists() and (tmp_path / ".git").exists()
        assert results.finished(tmp_path) == {"ab12": json.loads(json.dumps(result))}
