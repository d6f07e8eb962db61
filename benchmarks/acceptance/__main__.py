"""python -m benchmarks.acceptance run | table | search: the trials, one process each; what is done is skipped."""

import argparse
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS, SEARCHED = HERE / "results.jsonl", HERE / "search.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; 1 when a trial failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.acceptance", description=__doc__)
    parser.add_argument("what", choices=("run", "table", "search"))
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with trec, sst2 and tiny_shakespeare")
    parser.add_argument("--models", type=Path, default=Path("models"), help="folder with stories260K")
    parser.add_argument("--only", default="", help="regular expression on data/method/seed, as in 'trec/(lora|full)/0'")
    parser.add_argument("--rates", type=float, nargs="+", default=[], help="search: learning rates to compare")
    parser.add_argument("--epochs", type=float, help="search: passes over the training part")
    parser.add_argument("--set", default="", help='search: hyperparameters, as in \'{"sites": "all-linear"}\'')
    given = parser.parse_args(argv)
    if given.what == "table":
        from benchmarks.acceptance.table import write

        write(read(RESULTS), read(SEARCHED))
        return 0
    return _search(given) if given.what == "search" else _run(given)


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a results file."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _run(given: argparse.Namespace) -> int:
    from benchmarks.acceptance.material import material
    from benchmarks.acceptance.running import quick, run
    from benchmarks.acceptance.table import write
    from benchmarks.acceptance.trials import trials

    quick()
    wanted = [trial for trial in trials() if re.search(given.only, str(trial))]
    failed = 0
    for number, trial in enumerate(wanted, 1):
        # Read anew each time: several may run at once, each with its own --only.
        if any((r["data"], r["method"], r["seed"]) == (trial.data, trial.method, trial.seed) for r in read(RESULTS)):
            continue
        print(f"{number} of {len(wanted)}: {trial}", flush=True)
        ready = material(trial.data, given.data, given.models)
        failed += not _apart(lambda: run(trial, ready), RESULTS)  # noqa: B023
        write(read(RESULTS), read(SEARCHED))
    return int(failed > 0)


def _search(given: argparse.Namespace) -> int:
    from dataclasses import replace

    from benchmarks.acceptance.material import material
    from benchmarks.acceptance.running import quick, run
    from benchmarks.acceptance.trials import trials

    quick()
    failed = 0
    for trial in (t for t in trials() if re.search(given.only, str(t)) and t.seed == 0):
        method = replace(trial.made, **json.loads(given.set or "{}"))
        ready = material(trial.data, given.data, given.models, search=True)
        for rate in given.rates:
            work = lambda: run(trial, ready, method=method, lr=rate, epochs=given.epochs)  # noqa: B023, E731
            failed += not _apart(work, SEARCHED)
    return int(failed > 0)


def _apart(work: Callable[[], dict[str, Any]], results: Path) -> bool:
    """Do the work in a process of its own, so that memory is its own, and append its record."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            record = work()
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print({key: record[key] for key in ("data", "method", "seed", "lr", "scores", "cpu_seconds", "seconds")},
                  flush=True)  # fmt: skip
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


if __name__ == "__main__":
    sys.exit(main())
