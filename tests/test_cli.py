"""The command line through `main`: what a user types, what the verb then gets, what the user is told."""

import json
import math
import re
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

import graft
from graft import catalogue, cli, verbs
from graft.errors import BadInput, GateFailed, Refused
from graft.options.command import parse, positional
from graft.options.fields import fields_of
from graft.options.keywords import function
from test_process import graft_process


@dataclass(frozen=True)
class Options:
    """Try every kind of option.

    A second paragraph.
    """

    model: Annotated[str, "a folder or an id"]
    data: Annotated[tuple[str, ...], "files"] = ()
    columns: Annotated[dict[str, str] | None, "names of columns"] = None
    settings: Annotated[dict[str, Any], "anything"] = field(default_factory=dict)
    steps: Annotated[int | None, "how many steps"] = None
    learning_rate: Annotated[float, "step width"] = 1e-3
    precision: Annotated[Literal["bf16", "fp32"], "arithmetic"] = "fp32"
    output: Annotated[Path | None, "where to"] = None
    shuffle: Annotated[bool, "in random order"] = True
    resume: Annotated[bool, "go on"] = False
    tokens: Annotated[int, "how many tokens"] = 10
    method: Annotated["str | Method", "how to adapt"] = "alpha"  # type: ignore[name-defined] # noqa: F821


@dataclass(frozen=True)
class Alpha:
    """A method."""

    rank: Annotated[int, "width"] = 8
    tokens: Annotated[int, "as many"] = 4


@dataclass(frozen=True)
class BetaGamma:
    """Another method."""

    rank: Annotated[int, "width"] = 2
    init_text: Annotated[str | None, "start"] = None


@dataclass
class Result:
    seen: Any
    exit_code: int = 0

    def show(self, console: Any) -> None:
        console.print("shown", style="red")

    def as_json(self) -> dict[str, Any]:
        return {"model": self.seen.model, "losses": [1.5, math.nan, -math.inf]}


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.SimpleNamespace]:
    """A verb `sample` with two methods, `alpha` and `beta_gamma`; `.given` is what it ran with, `.does` its act."""
    state = types.SimpleNamespace(given=None, does=Result)

    def run(options: Options) -> Result:
        state.given = options
        return state.does(options)

    def module(name: str, **content: Any) -> None:
        made = types.ModuleType(name)
        made.__dict__.update(content)
        monkeypatch.setitem(sys.modules, name, made)

    entries = {
        "alpha": catalogue.Entry("alpha", "Alpha", "A method."),
        "beta_gamma": catalogue.Entry("beta_gamma", "BetaGamma", "Another."),
    }
    monkeypatch.setattr(catalogue, "verbs", lambda: {"sample": catalogue.Entry("sample", "Options", "Try it.")})
    monkeypatch.setattr(catalogue, "methods", lambda: entries)
    module("graft.verbs.sample", Options=Options, run=run)
    module("graft.methods.alpha", Alpha=Alpha)
    module("graft.methods.beta_gamma", BetaGamma=BetaGamma)
    # Building methods is graft.method's own business; here it is enough to see what it is asked for.
    module("graft.method", named=lambda name, settings: (name, settings), find=catalogue.method_class)
    yield state


@pytest.fixture
def run(sample: types.SimpleNamespace, tmp_path: Path) -> Callable[..., Options]:
    """Run `graft sample` with the text of a recipe (or None) and arguments; give the options that arrived."""

    def go(recipe: str | None, *arguments: str) -> Options:
        before = []
        if recipe is not None:
            (tmp_path / "recipe.yaml").write_text(recipe, encoding="utf-8")
            before = [str(tmp_path / "recipe.yaml")]
        assert cli.main(["sample", *before, *arguments]) == 0
        return sample.given

    return go


def test_the_usage_line_is_what_works() -> None:
    """What stands behind an option that takes several is given by name."""
    compare, combine = (positional(fields_of(verbs.module(name).Options)) for name in ("compare", "combine"))
    assert (compare, combine) == (" MODEL... --data DATA...", " ADAPTERS... --how HOW --output OUTPUT")
    call = parse(["combine", "a", "b", "--how", "stack", "--output", "c"])
    assert call is not None and call.options == {"adapters": ("a", "b"), "how": "stack", "output": Path("c")}


@pytest.fixture
def refuse(sample: types.SimpleNamespace, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run what must be refused as bad input; give the message, with the recipe's folder cut off."""

    def go(recipe: str | bytes | None, *arguments: str) -> str:
        before = []
        if recipe is not None:
            (tmp_path / "r.yaml").write_bytes(recipe.encode() if isinstance(recipe, str) else recipe)
            before = [str(tmp_path / "r.yaml")]
        assert cli.main(["sample", *before, *arguments]) == 2
        assert sample.given is None
        said = capsys.readouterr()
        assert said.out == "" and said.err.startswith("error: ")
        return said.err.replace(f"{tmp_path}/", "").removeprefix("error: ")

    return go


def test_options_of_every_type(run: Callable[..., Options]) -> None:
    typed = run(
        None, "m", "--data", "a", "b", "--columns.text", "t", "--settings.width", "256", "--settings.on", "true",
        "--steps", "3", "--learning-rate", "1e-4", "--precision", "bf16", "--output", "x/y", "--no-shuffle", "--resume",
    )  # fmt: skip
    written = run(
        "model: m\ndata: [a, b]\ncolumns: {text: t}\nsettings:\n  width: 256\n  on: true\nsteps: 3\n"
        "learning_rate: 1e-4\nprecision: bf16\noutput: x/y\nshuffle: false\nresume: true\n"
    )
    assert typed == written
    assert typed == Options(
        "m", ("a", "b"), {"text": "t"}, {"width": 256, "on": True}, 3, 1e-4, "bf16", Path("x/y"), False, True,
        method=("alpha", {}),  # type: ignore[arg-type]
    )  # fmt: skip


def test_what_is_not_given_keeps_its_default(run: Callable[..., Options]) -> None:
    assert run(None, "--model", "m") == Options("m", method=("alpha", {}))  # type: ignore[arg-type]


def test_the_command_line_wins_over_the_recipe(run: Callable[..., Options]) -> None:
    seen = run("model: a\nresume: true\ndata: [x, y]\nsteps: 7\n", "b", "--no-resume", "--data", "z")
    assert (seen.model, seen.resume, seen.data, seen.steps) == ("b", False, ("z",), 7)


def test_a_recipe_means_what_the_option_means(run: Callable[..., Options]) -> None:
    seen = run("model: no\ncolumns: {a: 007, b: on}\nsteps: null\noutput: ~\ndata: []\nlearning-rate: 1e-5")
    assert (seen.model, seen.columns, seen.steps) == ("no", {"a": "007", "b": "on"}, None)
    assert (seen.output, seen.data, seen.learning_rate) == (None, (), 1e-5)


@given(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1), st.floats(allow_nan=False), st.integers())
def test_values_survive_the_way_through(text: str, number: float, whole: int) -> None:
    from graft.options.command import parse

    context = pytest.MonkeyPatch()
    context.setattr(catalogue, "verbs", lambda: {"sample": catalogue.Entry("sample", "Options", "Try it.")})
    made = types.ModuleType("graft.verbs.sample")
    made.Options = dataclass(frozen=True)(  # type: ignore[attr-defined]
        type(
            "Options",
            (),
            {"__annotations__": {n: Annotated[t, "x"] for n, t in (("a", str), ("b", float), ("c", int))}},
        )
    )
    context.setitem(sys.modules, "graft.verbs.sample", made)
    with context.context():
        call = parse(["sample", f"--a={text}", f"--b={number!r}", f"--c={whole}"])
    context.undo()
    assert call is not None and call.options == {"a": text, "b": number, "c": whole}


def test_methods_and_their_settings(run: Callable[..., Options]) -> None:
    def method(recipe: str | None, *arguments: str) -> Any:
        return run(recipe, "m", *arguments).method

    assert method(None, "--rank", "4") == ("alpha", {"alpha": {"rank": 4}})
    assert method(None, "--method", "BetaGamma", "--beta_gamma.init_text", "x y") == (
        "beta_gamma", {"beta_gamma": {"init_text": "x y"}},
    )  # fmt: skip
    # `rank` belongs to two methods of the sum, `tokens` also to the verb, `init_text` to one method alone
    assert method(None, "--method=alpha+beta_gamma", "--init-text", "x", "--alpha.rank", "1", "--tokens", "9") == (
        "alpha+beta_gamma", {"alpha": {"rank": 1}, "beta_gamma": {"init_text": "x"}},
    )  # fmt: skip
    assert method("method: beta_gamma\nbeta_gamma: {rank: 3}\ninit_text: null") == (
        "beta_gamma", {"beta_gamma": {"rank": 3, "init_text": None}},
    )  # fmt: skip
    assert method("alpha: {rank: 3}", "--alpha.rank", "5") == ("alpha", {"alpha": {"rank": 5}})
    # a method replaced on the command line takes its settings along
    assert method("method: beta_gamma\nbeta_gamma: {rank: 3}", "--method", "alpha") == ("alpha", {})


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["m", "--method", "alhpa"], 'there is no method "alhpa"; the nearest is "alpha"'),
        (["m", "--method", "alpha+alpha"], "alpha is in the sum twice"),
        (["m", "--beta_gamma.rank", "3"], "Unknown option: --beta_gamma.rank"),
        (["m", "--method", "alpha+beta_gamma", "--rank", "3"], "Unknown option: --rank. Did you mean --"),
        (["m", "--learning-rat", "3"], "Did you mean --learning-rate?"),
        (["m", "--steps", "2.5"], '--steps: expected int or none, got "2.5"'),
        (["m", "--steps", "many"], '--steps: expected int or none, got "many"'),
        (["m", "--precision", "bf61"], 'expected one of bf16, fp32, got "bf61". Did you mean "bf16"?'),
        (["m", "n"], "unexpected: n"),
        ([], "--model"),
        (["m", "--output"], "--output requires an argument"),
    ],
)
def test_wrong_arguments(refuse: Callable[..., str], arguments: list[str], said: str) -> None:
    assert said in refuse(None, *arguments)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (
            "# a comment\nmodel: m\nlearning_rat: 3\n",
            'r.yaml:3: there is no option "learning_rat"; the nearest is "learning_rate"',
        ),
        ("model: m\nalpha:\n  rnk: 3\n", 'r.yaml:3: there is no option "alpha.rnk"; the nearest is "alpha.rank"'),
        ("model: m\nalpha: 3\n", 'r.yaml:2: alpha has options of its own, as in "alpha: {rank: ...}", got "3"'),
        ("model: m\nbeta_gamma: {rank: 3}\n", 'r.yaml:2: there is no option "beta_gamma.rank"'),
        ("model: m\nsteps: many\n", 'r.yaml:2: steps: expected int or none, got "many"'),
        ("model: m\nalpha: {rank: 8.7}\n", 'r.yaml:2: alpha.rank: expected int, got "8.7"'),
        ("model: m\nsteps: [1]\n", "r.yaml:2: steps: expected int or none, got a list"),
        ("model: m\nlearning_rate: null\n", "r.yaml:2: learning_rate: expected float, got null"),
        ("model: m\ncolumns: text\n", 'r.yaml:2: columns: expected name: str or none, got "text"'),
        ("model: m\nresume: maybe\n", 'r.yaml:2: resume: expected bool, got "maybe"'),
        ("model: m\nno_resume: true\n", 'r.yaml:2: there is no option "no_resume"'),
        ("model: m\njson: true\n", 'r.yaml:2: there is no option "json"'),
        ("model: m\ndata: [[1]]\n", "r.yaml:2: data is a list of lists or mappings"),
        ("model: m\n\nmodel: n\n", "r.yaml:3: model stands already at r.yaml:1"),
        ("model: [m\n", "r.yaml:2: not valid YAML"),
        ("- model\n", "r.yaml:1: a recipe is a mapping"),
        ("model: !!python/object/apply:os.getcwd []\n", "r.yaml:1: model: expected str, got a list"),
        (b"model: \xff\n", "r.yaml is not UTF-8"),
        ("model: \x07\n", "r.yaml is not valid YAML"),
        ("model: " + "[" * 5000, "r.yaml is nested too deep"),
    ],
)
def test_wrong_recipes_say_file_and_line(refuse: Callable[..., str], recipe: str | bytes, said: str) -> None:
    assert said in refuse(recipe)


def test_all_that_is_wrong_in_a_recipe_is_said_at_once(refuse: Callable[..., str]) -> None:
    said = refuse("modl: m\nsteps: [1]\nfoo: 1\n")
    assert [line.partition(": ")[0] for line in said.splitlines()] == ["r.yaml:1", "r.yaml:2", "r.yaml:3"]


def test_a_missing_recipe(refuse: Callable[..., str]) -> None:
    assert "cannot read the recipe nowhere.yaml: No such file" in refuse(None, "nowhere.yaml")


def test_help_lists_methods_and_shows_their_settings_when_named(
    sample: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert cli.main(["--help"]) == 0
    assert re.search(r"sample +Try it\.", capsys.readouterr().out)
    assert cli.main(["sample", "--help"]) == 0
    plain = capsys.readouterr().out
    assert "graft sample [RECIPE.yaml] MODEL [OPTIONS]" in plain and "A second paragraph." in plain
    assert "alpha, beta_gamma" in plain and "--alpha.rank" not in plain and "--json" in plain
    assert cli.main(["sample", "--method", "alpha", "--help"]) == 0
    assert "--alpha.rank --rank INT" in capsys.readouterr().out
    assert sample.given is None


def test_what_is_printed(sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sample", "m"]) == 0
    assert capsys.readouterr().out == "shown\n"  # no color where the output is no terminal
    assert cli.main(["sample", "m", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": "m", "losses": [1.5, None, None]}
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"{graft.__version__}\n"


def raises(error: BaseException) -> Callable[[Any], Result]:
    def does(options: Any) -> Result:
        raise error

    return does


@pytest.mark.parametrize(
    ("does", "code", "said"),
    [
        (lambda options: Result(options, exit_code=1), 1, ""),
        (raises(GateFailed("it [bold]did not[/] help")), 1, "error: it [bold]did not[/] help\n"),
        (raises(Refused("not here")), 2, "error: not here\n"),
        (raises(KeyboardInterrupt()), 130, "interrupted\n"),
        (raises(KeyboardInterrupt("saved; go on with --resume")), 130, "interrupted: saved; go on with --resume\n"),
    ],
)
def test_exit_codes(sample: Any, capsys: pytest.CaptureFixture[str], does: Any, code: int, said: str) -> None:
    sample.does = does
    assert cli.main(["sample", "m"]) == code
    assert capsys.readouterr().err == said


def test_an_unexpected_error_is_one_line_and_a_file(
    sample: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("GRAFT_DEBUG", raising=False)
    sample.does = raises(ZeroDivisionError("by zero"))
    assert cli.main(["sample", "m"]) == 3
    said = capsys.readouterr().err
    (log,) = tmp_path.glob("graft-*.log")
    assert said.startswith("unexpected ZeroDivisionError: by zero\n") and str(log) in said and "Traceback" not in said
    assert "Traceback" in log.read_text() and "by zero" in log.read_text()
    with pytest.raises(ZeroDivisionError):
        cli.main(["sample", "m", "--debug"])
    monkeypatch.setenv("GRAFT_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.main(["sample", "m"])


def test_unknown_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["docter"]) == 2
    assert 'Did you mean "doctor"?' in capsys.readouterr().err


def test_ctrl_c_that_a_library_wrapped_is_still_one(sample: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def does(options: Options) -> Any:
        class Interrupts:
            def __set_name__(self, owner: type, name: str) -> None:
                raise KeyboardInterrupt

        try:
            return type("Library", (), {"field": Interrupts()})  # Python 3.11 makes a RuntimeError of it
        except BaseException as error:
            raise ImportError("the library did not load") from error

    sample.does = does
    assert cli.main(["sample", "m"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_tab_completion_in_bash(sample: Any, capfd: pytest.CaptureFixture[str]) -> None:
    def press_tab(script: str, *words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        asked = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _graft"
        shell = f"{script}\n{asked}; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        done = subprocess.run(["bash"], input=shell, capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert cli.main(["--completion", "bash"]) == 0
    script = capfd.readouterr().out
    assert press_tab(script, "graft", "") == {"sample"}
    assert press_tab(script, "graft", "sample", "--re") == {"--resume"}
    assert press_tab(script, "graft", "sample", "--precision", "") == {"bf16", "fp32"}
    assert press_tab(script, "graft", "sample", "--method", "be") == {"beta_gamma"}
    assert press_tab(script, "graft", "sample", "--alpha.") == {"--alpha.rank", "--alpha.tokens"}
    real = graft_process("--completion", "bash").stdout
    assert press_tab(real, "graft", "doc") == {"doctor"}


def test_options_given_in_python_are_those_of_the_command_line(sample: Any) -> None:
    function("sample")(**{"model": "m", "output": "a/b", "data": ["x"], "steps": None, "learning_rate": 1})
    assert sample.given == Options("m", output=Path("a/b"), data=("x",), learning_rate=1, method=("alpha", {}))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "graft sample needs model."), ({"model": "m", "steps": "3"}, 'steps: expected int or none, got \'3\'.'),
        ({"model": "m", "steps": 2.5}, "steps: expected int or none, got 2.5."),
        ({"model": "m", "tokens": True}, "tokens: expected int, got True."),
        ({"model": "m", "learning_rate": None}, "learning_rate: expected float, got None."),
        ({"model": "m", "precision": "fp23"}, "precision: expected one of bf16, fp32, got 'fp23'."),
        ({"model": "m", "shuffle": 1}, "shuffle: expected bool, got 1."),
        ({"model": "m", "data": "x"}, "data: expected several str, got 'x'."),
        ({"model": "m", "method": Alpha}, "method: got the class Alpha. Call it: Alpha()."),
    ],
)  # fmt: skip
def test_wrong_options_in_python(sample: Any, given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as refused:
        function("sample")(**given)
    assert str(refused.value) == said and sample.given is None
