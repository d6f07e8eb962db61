"""The command line: `graft VERB [recipe.yaml] [--key value]`. Commands are the files of `verbs/`.

Exit codes: 0 done, 1 a gate failed, 2 bad input, 3 a defect in graft, 130 interrupted.
"""

import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Any

from rich.console import Console

from graft.errors import GraftError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `arguments` default to the process's own."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except GraftError as error:
        return _fail(f"error: {error}", error.exit_code)
    except KeyboardInterrupt as interruption:
        return _fail(f"interrupted: {interruption}" if interruption.args else "interrupted", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's own flush complains
        return 141
    except Exception as error:
        if "--debug" in arguments or os.environ.get("GRAFT_DEBUG"):
            raise
        return _fail(f"unexpected {type(error).__name__}: {error}\n{_report()}", 3)


def _run(arguments: Sequence[str]) -> int:
    from graft.options.command import parse
    from graft.verbs import run

    console = _Console()
    call = parse(arguments, console)
    if call is None:
        return 0
    result = run(call.verb, call.options)
    if call.json:
        print(json.dumps(_finite(result.as_json()), indent=2))
    else:
        result.show(console)
    return result.exit_code


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fail(message: str, code: int) -> int:
    kind, _, rest = message.partition(":")
    console = _Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(kind, style="bold red", end="")
    console.print(f":{rest}" if rest else "", markup=False)
    return code


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Leave the closed pipe to `main`; rich would exit with 1, which here means a gate that failed."""
        raise BrokenPipeError


def _report() -> str:
    """Keep the traceback of the error being handled in a file, and say what to do with it."""
    with tempfile.NamedTemporaryFile("w", prefix="graft-", suffix=".log", delete=False, encoding="utf-8") as log:
        traceback.print_exc(file=log)
    return f"This is a defect in graft: please report it with {log.name} (see CONTRIBUTING.md). --debug shows it."


if __name__ == "__main__":
    sys.exit(main())
