"""What comparisons are asked for and cannot be, or only just: the exit code, the words, what is left on disk."""

import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import small
from graft import cli, page
from graft.tournament import results

Compare = Callable[..., Any]
Said = Callable[..., tuple[int, str, str]]
FEW = ("--contestants", "majority", "tfidf", "--seeds", "0", "--trials", "1", "--steps", "8", "--length", "32")


@pytest.fixture
def said(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """`said("--metric", "f1")`: exit code, output and errors of `graft compare` on the small rows."""

    def call(*options: str, rows: tuple[str, ...] = ("classes",), folder: Path = tmp_path / "run") -> Any:
        capsys.readouterr()
        given = ["--model", str(home / "bert"), "--folder", str(folder), "--data"]
        given += [str(home / each) for each in rows]
        code = cli.main(["compare", *given, *(() if "--contestants" in options else FEW[:3]), *FEW[3:], *options])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def altered(home: Path) -> Callable[..., str]:
    """Write the small rows, changed, as a data set of their own."""

    def alter(name: str, test: Callable[[list[Any]], list[Any]], row: Callable[[Any], Any] = lambda row: row) -> str:
        for split in ("train", "validation", "test"):
            rows = [row(each) for each in small.lines(home / "classes" / f"{split}.jsonl")]
            rows = test(rows) if split == "test" else rows
            (home / name).mkdir(exist_ok=True)
            (home / name / f"{split}.jsonl").write_text("".join(f"{json.dumps(each)}\n" for each in rows))
        return name

    return alter


@pytest.fixture(scope="session")
def numbers(altered: Callable[..., str]) -> str:
    """Rows whose labels are numbers: the constant answer has no correlation with anything."""
    return altered("numbers", lambda rows: rows, lambda row: {**row, "label": len(row["text"]) / 7})


def line(result: Any, name: str) -> Any:
    return next(each for each in result.standings["boards"][0]["lines"] if each["contestant"] == name)


def printed(result: Any) -> str:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        result.show(console)
    return capture.get()


def test_a_test_set_of_one_item_has_scores_and_no_comparison(compared: Compare, altered: Callable[..., str]) -> None:
    result = compared(rows=altered("one", lambda rows: rows[:1]), contestants=("majority", "tfidf"))
    assert {line(result, name)["score"]["value"] for name in ("majority", "tfidf")} <= {0.0, 100.0}
    pair = result.standings["boards"][0]["pairs"][0]["comparison"]
    assert pair["outcome"] in ("undefined", "same") and "one item" in pair["verdict"]
    assert result.exit_code == 0 and "one item" in printed(result)
    assert "one item" in (result.folder / "page.html").read_text()


def test_a_label_that_test_lacks_changes_nothing(compared: Compare, altered: Callable[..., str]) -> None:
    rows = altered("lacking", lambda rows: [row for row in rows if row["label"] == "animal"])
    result = compared(rows=rows, contestants=("majority", "bitfit"), metric="f1")
    assert all(line(result, name)["score"]["value"] is not None for name in ("majority", "bitfit"))
    assert result.standings["boards"][0]["card"]["labels"].keys() == {"animal", "plant"}


def test_a_metric_that_is_undefined_for_one_says_why(compared: Compare, numbers: str) -> None:
    result = compared(rows=numbers, contestants=("majority", "head"))
    assert line(result, "majority")["score"]["value"] is None
    assert "every output is the same" in line(result, "majority")["score"]["reason"]
    board = result.standings["boards"][0]
    assert board["best"] == "head" and board["pairs"][0]["comparison"]["outcome"] == "undefined"
    assert "majority" not in result.standings["answer"]["sentence"]
    row = next(row for row in printed(result).splitlines() if row.startswith("majority"))
    assert "undefined" in row and "every output is the same" in row
    for name in ("page.html", "report.md"):
        assert "every output is the same" in (result.folder / name).read_text()


def test_a_metric_that_is_undefined_for_all_is_no_contest(compared: Compare, numbers: str) -> None:
    result = compared(rows=numbers, contestants=("majority", "again=majority"))
    assert result.standings["answer"]["sentence"] == "No contestant has a score: there is nothing to compare."
    assert result.standings["boards"][0]["best"] is None and printed(result).count("undefined") == 2


def test_when_all_fail_the_command_fails_and_the_page_shows_why(said: Said, tmp_path: Path) -> None:
    code, out, _ = said("--contestants", "a=lora", "b=lora", "--a.lr", "1e30", "--b.lr", "1e29")
    assert code == 1 and "No contestant finished" in out and out.count("finite") == 2
    assert "finite" in (tmp_path / "run" / "page.html").read_text()


def test_boards_of_different_metrics_are_refused(said: Said, numbers: str, tmp_path: Path) -> None:
    code, _, error = said(rows=("classes", numbers))
    assert code == 2 and "different metrics (accuracy on classes, pearson on numbers)" in error
    assert not (tmp_path / "run").exists()


WRONG: list[tuple[Sequence[str], str]] = [
    (("--contestants", "majorty"), "'majorty'. Did you mean 'majority'?"),
    (("--contestants", "lroa"), "'lroa'. Did you mean 'lora'?"),
    (("--contestants", "lora", "--lora.rnak", "3"), "--lora.rank"),
    (("--contestants", "lora", "--lora.rank", "0"), "rank must be at least 1, got 0"),
    (("--contestants", "lora", "--lora.rank", "4", "5000"), "lora rank=5000: LoRA: rank 5000 at encoder.0.q"),
    (("--contestants", "lora", "lora"), "two contestants are called 'lora'"),
    (("--metric", "acuracy"), "Did you mean accuracy"),
    (("--seeds", "0", "0"), "0, 0"),
    (("--sizes", "-1"), "-1"),
    (("--trials", "0"), "trials"),
    (("--workers", "0"), "workers"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=[" ".join(options) for options, _ in WRONG])
def test_what_cannot_be_is_one_line(said: Said, tmp_path: Path, options: Sequence[str], words: str) -> None:
    code, out, error = said(*options)
    assert (code, out) == (2, "") and error.startswith("error: ") and words in error
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_no_contestant_at_all_is_refused(compared: Compare) -> None:
    from graft.errors import BadInput

    with pytest.raises(BadInput, match="contestants: give at least one"):
        compared(contestants=())


def test_a_folder_that_cannot_be_written_is_told_before_anything_runs(said: Said, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder\n")
    code, out, error = said(folder=tmp_path / "file" / "run")
    assert (code, out) == (2, "") and "cannot write" in error and error.count("\n") == 1


def test_a_dry_run_writes_nothing(said: Said, tmp_path: Path) -> None:
    code, out, _ = said("--dry-run")
    assert code == 0 and "2 trials in all" in out and not list(tmp_path.iterdir())


def test_sizes_beyond_the_data_are_one_board(compared: Compare) -> None:
    boards = compared(contestants=("majority", "tfidf"), sizes=(10, 1000, 0)).standings["boards"]
    assert [(board["id"], board["rows"]["train"]) for board in boards] == [("classes-10", 10), ("classes-1000", 64)]
    assert "it has 64 train rows: sizes 1000 and all are one board." in boards[1]["card"]["notes"]


def test_a_recipe_runs_again_without_a_new_trial(
    said: Said, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said("--contestants", "majority", "small=tfidf", "--small.C", "0.5", "2", "--json")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "trials").rglob("*")}
    assert cli.main(["compare", str(tmp_path / "run" / "recipe.yaml"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == json.loads((tmp_path / "run" / "standings.json").read_text(), parse_constant=pytest.fail)
    assert found["command"] == f"graft compare {tmp_path / 'run' / 'recipe.yaml'}"
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "trials").rglob("*")} == before


def test_a_torn_result_is_told_and_not_run_again(said: Said, tmp_path: Path) -> None:
    assert said()[0] == 0
    first, second = sorted((tmp_path / "run").glob("trials/*/result.json"))
    first.write_text(first.read_text()[:20])
    second.write_text("[]")
    code, out, error = said()
    assert (code, out) == (2, "") and str(first) in error and str(second) in error and error.count("\n") == 1
    for path in (first, second):
        shutil.rmtree(path.parent)
    assert said()[0] == 0


def test_records_that_are_gone_are_told(said: Said, tmp_path: Path) -> None:
    assert said()[0] == 0
    lost = next((tmp_path / "run").glob("trials/*/records.jsonl"))
    lost.unlink()
    code, _, error = said()
    assert code == 2 and str(lost) in error and "Remove its folder" in error and error.count("\n") == 1


def test_two_comparisons_at_once_in_one_folder_are_refused(said: Said, tmp_path: Path) -> None:
    with results.claimed(tmp_path / "run"):
        code, out, error = said()
        assert (code, out) == (2, "") and "another comparison is running in this folder" in error
        assert error.count("\n") == 1 and not (tmp_path / "run" / "recipe.yaml").exists()
    assert said()[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("limit", [200, 700, 4000, 12000, 60000])
def test_a_full_disk_is_told_and_leaves_nothing_half_written(home: Path, tmp_path: Path, limit: int) -> None:
    command = [sys.executable, "-m", "graft", "compare", "--model", str(home / "bert"), "--data", str(home / "classes"),
               "--folder", str(tmp_path), "--contestants", "majority", "lora", *FEW[3:], "--dtype", "fp32"]  # fmt: skip
    # Files can have so many bytes: the recipe, a result, an adapter, the standings or the page is the first too large.
    full = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=100,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
    )  # fmt: skip
    assert (full.returncode, full.stdout, full.stderr.count("\n")) == (2, "", 1)
    assert "File too large" in full.stderr and "ree some space" in full.stderr
    assert not [path for path in tmp_path.rglob(".*") if path.name != results.LOCK]
    assert not [
        error for path in tmp_path.glob("trials/*/result.json") if (error := json.loads(path.read_text())["error"])
    ]
    again = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)
    assert (again.returncode, again.stderr) == (0, "") and "failed" not in again.stdout
    page.write(tmp_path)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys; from graft import cli; assert cli.main(['compare', '--help']) == 0; "
        "print([name for name in ('torch', 'transformers', 'sklearn', 'datasets') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.splitlines()[-1] == "[]" and "--contestants" in run.stdout
