"""`make bench`: every benchmark in turn. One of them: `python -m benchmarks.acceptance --help`."""

import sys

from benchmarks.acceptance.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["run", *sys.argv[1:]]))
