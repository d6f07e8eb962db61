"""The written pages as blocks: files to write, code to run, commands with the output they show."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"
_FENCE = re.compile(r"^(?P<fence>```+)(?P<language>\w*)[^\n]*\n(?P<text>.*?)^(?P=fence)\n", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"`([\w./-]+)`:\n\n\Z")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, its text, and the file it is said to be, as in "`rows.jsonl`:"."""

    page: str
    line: int
    language: str
    text: str
    file: str | None

    def commands(self) -> list[tuple[str, str]]:
        """Each line after "$ " with the output under it."""
        found: list[tuple[str, str]] = []
        for line in self.text.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], ""))
            elif found:
                found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
        return found


def written() -> list[Path]:
    """Every page that a person wrote, the README first."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
    return [*top, *sorted(DOCS.glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _FENCE.finditer(text):
        named = _FILE.search(text[: match.start()])
        line = text.count("\n", 0, match.start()) + 1
        found.append(Block(page.name, line, match["language"], match["text"], named[1] if named else None))
    return found


def agrees(shown: str, seen: str) -> bool:
    """Whether `seen` is what the page shows: "…" alone on a line stands for any lines, within one for any text."""
    wanted = [line.rstrip() for line in shown.strip("\n").splitlines()]
    parts = ["(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in wanted]
    lines = "".join(f"{line.rstrip()}\n" for line in seen.strip("\n").splitlines())
    return re.fullmatch("".join(parts), lines) is not None
