"""Reading one file into rows: the format by extension, or by content where the extension is missing."""

from pathlib import Path

from graft.data.formats.delimited import read_csv, read_tsv
from graft.data.formats.json_document import read_json
from graft.data.formats.json_lines import read_json_lines
from graft.data.formats.parquet import read_parquet
from graft.data.formats.table import Table
from graft.errors import BadInput

READERS = {
    ".jsonl": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
}
ALSO = {".ndjson": ".jsonl", ".pq": ".parquet"}


def suffix_of(path: Path) -> str | None:
    """The extension whose reader fits the file's name, or None."""
    suffix = path.suffix.lower()
    suffix = ALSO.get(suffix, suffix)
    return suffix if suffix in READERS else None


def read_file(path: Path) -> Table:
    """Read one data file. Rows that cannot be read are in the table's complaints; nothing is raised for them.

    Raises BadInput when the file cannot be opened or its format cannot be told.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror or error}.") from error
    suffix = suffix_of(path) or _by_content(path, content)
    return READERS[suffix](path, content)


def _by_content(path: Path, content: bytes) -> str:
    start = content[:65536].removeprefix(b"\xef\xbb\xbf").lstrip()
    first_line = start.split(b"\n", 1)[0]
    if content[:4] == b"PAR1":
        return ".parquet"
    if start[:1] in (b"{", b"["):
        return ".json"
    if content[:2] == b"\x1f\x8b" or content[:4] in (b"PK\x03\x04", b"(\xb5/\xfd"):
        raise BadInput(f"{path}: a compressed file. Unpack it first.")
    if b"\x00" not in start and b"\t" in first_line:
        return ".tsv"
    if b"\x00" not in start and b"," in first_line:
        return ".csv"
    raise BadInput(f"{path}: neither the extension nor the content tells the format. Known are {', '.join(READERS)}.")
