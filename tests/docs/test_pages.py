"""What the written pages show is what graft does: commands print it, code runs, links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

import cases
import graft
from docs.pages import DOCS, ROOT, agrees, blocks, written
from graft import bases, cli

# Pages whose every command runs in a moment, in an empty folder with the page's files in it.
QUICK = ("sites.md", "data.md")


@pytest.mark.parametrize("name", QUICK)
def test_commands_print_what_the_page_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    commands = 0
    for block in blocks(DOCS / name):
        if block.file:
            (tmp_path / block.file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block.file).write_text(block.text, "utf-8")
        for command, shown in block.commands() if block.language == "console" else ():
            words = shlex.split(command)
            assert words[0] == "graft", f"{name}:{block.line}: {command}"
            cli.main(words[1:])
            seen = capsys.readouterr()
            assert agrees(shown, seen.out + seen.err), f"{name}:{block.line}: {command} prints\n{seen.out}{seen.err}"
            commands += 1
    assert commands


def test_the_code_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code = [block for block in blocks(ROOT / "README.md") if block.language == "python"]
    assert len(code) == 1
    assert 4 <= len([line for line in code[0].text.splitlines() if line.strip()]) <= 8
    exec(compile(code[0].text, "README.md", "exec"), {})
    assert "Counts(trainable=" in capsys.readouterr().out
    assert (tmp_path / "runs" / "notes" / "adapter.safetensors").is_file()


@pytest.mark.parametrize(("name", "adapter"), [("checkpoints.md", "notes"), ("training.md", None)])
def test_the_code_of_a_page_runs(
    name: str, adapter: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In order, on the bundled model, with an adapter that has been trained where the page speaks of one."""
    monkeypatch.chdir(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(bases.path("sprout"))
    if adapter is not None:
        cases.move(graft.attach(model, graft.LoRA(), name=adapter))
    names = {"graft": graft, "torch": torch, "model": model}
    code = [block for block in blocks(DOCS / name) if block.language == "python"]
    assert code
    for block in code:
        exec(compile(block.text, f"{name}:{block.line}", "exec"), names)
    assert list(tmp_path.rglob("adapter.safetensors"))


@pytest.mark.parametrize("page", written(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    wrong = []
    for link in re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
        target, _, anchor = (link[0] or link[1]).partition("#")
        if re.match(r"\w+://", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            wrong.append(link[0] or link[1])
    assert not wrong, f"{page.name}: {wrong}"


def anchors(page: Path) -> set[str]:
    """What a page's headings are linked by."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
