"""Parquet, with the names of numbered labels when the file was written by `datasets`."""

import io
from pathlib import Path

from graft.data.formats.table import Table
from graft.data.rows import Row


def read_parquet(path: Path, content: bytes) -> Table:
    """Read a Parquet file. `where` is the file and the number of the row, from 1."""
    import pyarrow
    from pyarrow import parquet

    table = Table()
    try:
        read = parquet.read_table(io.BytesIO(content))
    except (pyarrow.ArrowException, OSError) as error:
        table.complain(f"{path}:1", f"not Parquet: {str(error).splitlines()[0]}")
        return table
    table.rows = [Row(cells, f"{path}:{number}") for number, cells in enumerate(read.to_pylist(), start=1)]
    if b"huggingface" in (read.schema.metadata or {}):
        from datasets import Features

        from graft.data.hub import class_names

        table.names = class_names(Features.from_arrow_schema(read.schema))
    return table
