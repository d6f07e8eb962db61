"""Data: any usual format and shape of rows, into splits and tasks, with nothing wrong let through."""

from graft.data.columns import format_columns, parse_columns
from graft.data.rows import ALLOWANCES, Row
from graft.data.sets import DataSets, load

__all__ = ["ALLOWANCES", "DataSets", "Row", "format_columns", "load", "parse_columns"]
