"""What reading a file gives, and text decoded line by line so that each bad line can be named."""

from dataclasses import dataclass, field
from pathlib import Path

from graft.data.rows import Complaint, Row


@dataclass
class Table:
    """Rows as read (raw columns), complaints about those that were not, and notes for the user.

    `names`: for a column of numbers that stand for names, the names by number (from a data set's own description).
    """

    rows: list[Row] = field(default_factory=list)
    complaints: list[Complaint] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(default_factory=dict)

    def complain(self, where: str, what: str, check: str = "unreadable") -> None:
        """Note that something at `where` cannot be used."""
        self.complaints.append(Complaint(check, where, what))


def decode_lines(path: Path, content: bytes, table: Table) -> list[str | None]:
    """The lines of a UTF-8 file, split at line feeds only; None where a line is not UTF-8, with a complaint."""
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        table.complain(f"{path}:1", "the file is UTF-16; save it as UTF-8")
        return []
    lines: list[str | None] = []
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            lines.append(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            what = f"not UTF-8: byte 0x{line[error.start]:02x} at position {error.start + 1} of the line"
            table.complain(f"{path}:{number}", what)
            lines.append(None)
    return lines
