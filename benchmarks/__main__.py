"""`make bench`: every benchmark in turn, skipping what is done. One alone: `python -m benchmarks.acceptance --help`."""

import argparse
import sys
from pathlib import Path

from benchmarks.acceptance.__main__ import main as acceptance
from benchmarks.comparison.__main__ import main as comparison


def main() -> int:
    """Run all; 1 when any failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with the data sets")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder with stories260K")
    given = parser.parse_args()
    failed = acceptance(["run", "--data", str(given.data), "--models", str(given.models)])
    return int(bool(comparison(["small", "--data", str(given.data)]) or failed))


if __name__ == "__main__":
    sys.exit(main())
