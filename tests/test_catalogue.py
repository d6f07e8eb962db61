"""Methods from outside of graft: a file that the user names, and a package that is installed."""

import json
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import graft
import small
import zoo
from docs.pages import DOCS, blocks
from graft import catalogue, cli, method
from graft.errors import BadInput

PAGE = DOCS / "how-a-method-is-written.md"
FEW = ("lora", "prompt_tuning", "top_layers")


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """As in a new process, with a few methods of graft's own; to call it is to begin another process."""

    def begin() -> None:
        catalogue._given.clear()
        catalogue._installed.cache_clear()
        for name in ("graft.methods.ssf", "graft.methods.prompts", "mine.ssf", "mine"):
            sys.modules.pop(name, None)

    own = {name: catalogue.own()[name] for name in FEW}
    monkeypatch.setattr(catalogue, "own", lambda: own)
    monkeypatch.delenv(catalogue.VARIABLE, raising=False)
    begin()
    yield begin
    begin()


@pytest.fixture
def ssf(tmp_path: Path) -> Path:
    """The method of the page that says how one is written, in a file of its own."""
    path = tmp_path / "code" / "ssf.py"
    path.parent.mkdir()
    path.write_text(next(b.text for b in blocks(PAGE) if b.file and b.file.endswith("methods/ssf.py")), "utf-8")
    return path


@pytest.fixture
def rows(tmp_path: Path) -> list[str]:
    """A base and rows, as the arguments of a verb."""
    return [str(small.base(tmp_path, "bert")), "--data", str(small.classes(tmp_path, (24, 8, 8)))]


def test_a_file_is_a_method_of_the_catalogue(
    ssf: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["methods", str(ssf), "--sites", "q", "--model", "sprout", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["name"] == "ssf" and found["origin"].startswith("ssf.py (sha256 ") and found["trains"] == "2·L·d"
    assert found["source"] == "Lian et al. 2022, arXiv 2210.08823" and found["costs"]["trainable"] == 8 * 2 * 256
    monkeypatch.setenv(catalogue.VARIABLE, str(ssf))
    assert cli.main(["methods"]) == 0
    text = capsys.readouterr().out
    assert "ssf " in text and "lora " in text


def test_a_file_is_tuned_loaded_and_compared(
    ssf: Path, rows: list[str], alone: Callable[[], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    arguments = [
        *rows,
        "--method",
        str(ssf),
        "--ssf.sites",
        "q v",
        "--folder",
        str(run),
        "--steps",
        "3",
        "--lr",
        "0.05",
    ]
    assert cli.main(["tune", *arguments, "--dry-run"]) == 0
    assert "sites=q v" in capsys.readouterr().out and not run.exists()
    assert cli.main(["tune", *arguments]) == 0
    assert f"use it: GRAFT_METHODS={ssf} graft evaluate" in capsys.readouterr().out
    assert yaml.safe_load((run / "recipe.yaml").read_text())["method"] == str(ssf)
    alone()
    assert cli.main(["tune", str(run / "recipe.yaml"), "--dry-run"]) == 0
    contestants = ["--contestants", "lora", str(ssf), "--ssf.sites", "q", "q v", "--dry-run"]
    capsys.readouterr()
    assert cli.main(["compare", "--model", *rows, *contestants]) == 0
    assert [line.split(":")[0].strip() for line in capsys.readouterr().out.splitlines()[1:4]] == [
        "lora", "ssf sites=q", "ssf sites=q v",
    ]  # fmt: skip


def test_an_adapter_says_which_method_it_needs_and_never_brings_it(
    ssf: Path, alone: Callable[[], None], tmp_path: Path
) -> None:
    model, folder = zoo.tiny("bert"), tmp_path / "adapter"
    adapter = graft.attach(model, method.named(str(ssf)))
    with pytest.raises(BadInput, match="there is no method"):
        method.find(str(ssf))  # a name that is a path is no name
    for tensor in adapter.parameters():
        tensor.data += 0.1
    graft.save(model, "default", folder)
    alone()
    with pytest.raises(BadInput, match=r"the method 'ssf' from ssf\.py \(sha256 .*GRAFT_METHODS=path/to/ssf\.py"):
        graft.load(zoo.tiny("bert"), folder)
    record = json.loads((folder / "graft.json").read_text())
    record["method"]["method"] = str(ssf)
    (folder / "graft.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="is not here"):
        graft.load(zoo.tiny("bert"), folder)
    assert not catalogue._given and "graft.methods.ssf" not in sys.modules


def test_an_adapter_whose_method_has_changed_says_so(
    ssf: Path, alone: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = zoo.tiny("bert")
    adapter = graft.attach(model, method.named(str(ssf)))
    for tensor in adapter.parameters():
        tensor.data += 0.1
    graft.save(model, "default", tmp_path / "adapter")
    for changed in (False, True):
        alone()
        ssf.write_text(ssf.read_text("utf-8") + "\n" * changed, "utf-8")
        monkeypatch.setenv(catalogue.VARIABLE, str(ssf))
        remarks = graft.load(zoo.tiny("bert"), tmp_path / "adapter").remarks
        assert any("ssf is another than when this was saved" in remark for remark in remarks) == changed


def test_another_process_finds_a_method_by_its_file(ssf: Path, alone: Callable[[], None]) -> None:
    made = method.named("lora+" + str(ssf), {"ssf": {"sites": "q"}})
    sent = pickle.dumps(made)
    alone()
    again = pickle.loads(sent)
    assert method.describe(again) == method.describe(made) and type(again.methods()[1]) is not type(made.methods()[1])


def test_a_package_declares_its_methods(
    ssf: Path, alone: Callable[[], None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    home = tmp_path / "site"
    (home / "mine").mkdir(parents=True)
    (home / "mine" / "__init__.py").touch()
    ssf.rename(home / "mine" / "ssf.py")
    about = home / "my_methods-1.2.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.2\n")
    (about / "entry_points.txt").write_text("[graft.methods]\nssf = mine.ssf:SSF\n")
    monkeypatch.syspath_prepend(str(home))
    alone()
    assert "ssf" in catalogue.methods() and "mine" not in sys.modules
    kind = method.find("ssf")
    assert kind.__module__ == "mine.ssf" and method.describe(kind())["from"] == "the package my-methods 1.2"
    assert cli.main(["methods", "ssf", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["origin"] == "the package my-methods 1.2"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("ssf.py", None, "cannot read a method there: No such file"),
        ("ssf.py", "x = 1\n", "holds no method: graft looks for a class that is called like the file"),
        ("ssf.py", "class SSF:\n  def\n", r"ssf\.py:2: no Python"),
        ("ssf.py", "import sys\nsys.exit(0)\nclass SSF: ...\n", "cannot be imported: SystemExit: 0"),
        ("ssf.py", "import nowhere\nclass SSF: ...\n", "cannot be imported: ModuleNotFoundError: No module named"),
        ("lora.py", "class LoRA: ...\n", r"two methods are called lora: one of graft itself, one from lora\.py"),
    ],
)
def test_files_that_are_no_method(
    name: str, text: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(BadInput, match=said):
        method.named(str(tmp_path / name))
    assert f"graft.methods.{name[:-3]}" not in sys.modules or name == "lora.py"


def test_a_file_that_is_refused_leaves_the_others_alone(tmp_path: Path) -> None:
    (tmp_path / "lora.py").write_text("class LoRA: ...\n")
    for _ in range(2):
        with pytest.raises(BadInput, match="two methods are called lora"):
            catalogue.asked(str(tmp_path / "lora.py"))
    assert catalogue.asked("lora").class_name == "LoRA" and "lora" in catalogue.methods()


HEAD = """
from dataclasses import dataclass
from typing import Annotated
from graft.method import Method
@dataclass(frozen=True)
class SSF(Method):
"""
SITES = '    sites: Annotated[str, "where"] = "q"\n'
BUILD = "    def build(self, site): return {}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("class SSF: ...", "SSF is no graft.Method"),
        ("def ssf(): ...", "ssf is no graft.Method"),
        (HEAD.replace("@dataclass(frozen=True)\n", "") + BUILD.format(1), "Write @dataclass(frozen=True) above it"),
        (HEAD.replace("(frozen=True)", "") + BUILD.format(1), "cannot inherit non-frozen"),
        (HEAD + '    """It has no build."""', "SSF makes nothing. Give it build"),
        (HEAD + "    size: int = 3\n" + BUILD.format(1), "SSF.size has no help: write size: Annotated["),
        (HEAD + '    size: Annotated[int, "size"]\n' + BUILD.format(1), "SSF.size has no default"),
        (HEAD + '    size: "Annotated[Zork, 1]" = 3\n' + BUILD.format(1), "NameError: name 'Zork' is not defined"),
        (HEAD + SITES + BUILD.format("{}['x']"), "ssf.py:8: the method breaks there. KeyError: 'x'."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["methods", "compare"])
def test_a_class_that_is_no_method_is_bad_input_of_its_file(
    verb: str, text: str, said: str, rows: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "ssf.py"
    path.write_text(text)
    more = [] if verb == "methods" else ["--model", *rows, "--dry-run", "--contestants"]
    assert cli.main([verb, *more, str(path)]) == 2
    found = capsys.readouterr()
    assert not found.out and found.err.startswith(f"error: {path}") and said in found.err


@pytest.mark.parametrize(
    ("made", "said"),
    [("None", "made None at encoder.0.q"), ("__import__('graft').Part()", "made a Part at encoder.0.q, which would")],
)
def test_what_a_method_makes_is_a_part_that_acts(made: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "ssf.py"
    path.write_text(HEAD + SITES + BUILD.format(made))
    with pytest.raises(BadInput, match=rf"ssf\.py: SSF {said}"):
        graft.attach(zoo.tiny("bert"), method.named(str(path)))


@pytest.mark.parametrize("name", ["lora(rank=8)", "LoRA()"])
def test_settings_in_a_name_are_told_where_they_go(name: str) -> None:
    with pytest.raises(
        BadInput, match=r"beside the name, by --method lora --lora\.SETTING VALUE, or LoRA\(\.\.\.\) in P"
    ):
        method.named(name)
