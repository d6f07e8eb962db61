"""The command line: `graft VERB [recipe.yaml] [--key value]`. Commands are the files of `verbs/`.

Exit codes: 0 done, 1 a gate failed, 2 bad input, 3 a defect in graft, 130 interrupted.
"""

import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from graft.errors import BadInput, GraftError, sentence

if TYPE_CHECKING:
    from rich.console import Console


# Everything else is imported within `main`: from there on Ctrl-C is one line.
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `arguments` default to the process's own."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(arguments)
    except BrokenPipeError:
        return 141
    except (Exception, KeyboardInterrupt) as error:
        if (interruption := _interruption(error)) is not None:
            return _fail(f"interrupted: {interruption}" if interruption.args else "interrupted", 130)
        if isinstance(error, GraftError):
            return _fail(f"error: {error}", error.exit_code)
        if "--debug" in arguments or os.environ.get("GRAFT_DEBUG"):
            raise
        from graft.catalogue import fault

        if where := fault(error):
            said = f"{type(error).__name__}: {sentence(error)}"
            return _fail(f"error: {where}: the method breaks there. {said} Correct it; --debug shows more.", 2)
        return _fail(f"unexpected {type(error).__name__}: {error}\n{_report()}", 3)


def _run(arguments: Sequence[str]) -> int:
    from graft.options.command import parse
    from graft.verbs import run

    console = _console()
    with _output():
        call = parse(arguments, console)
    if call is None:
        return 0
    result = run(call.verb, call.options)
    with _output():
        if call.json:
            print(json.dumps(_finite(result.as_json()), indent=2))
        else:
            result.show(console)
    return result.exit_code


@contextmanager
def _output() -> Iterator[None]:
    """Write what is said within to the end. Raises BrokenPipeError when nobody reads on, BadInput when it cannot be."""
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:
            raise  # opening a file names it, writing to standard output does not
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's own flush complains
        if isinstance(error, BrokenPipeError):
            raise
        raise BadInput(f"cannot write the output: {error.strerror or error}.") from error


def _interruption(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C behind an error: a library that is being imported may make another error of it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fail(message: str, code: int) -> int:
    kind, _, rest = message.partition(":")
    console = _console(stderr=True, highlight=False, soft_wrap=True)
    console.print(kind, style="bold red", end="")
    console.print(f":{rest}" if rest else "", markup=False)
    return code


def _console(**settings: Any) -> "Console":
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:
            """Leave the closed pipe to `main`; rich would exit with 1, which here means a gate that failed."""
            raise BrokenPipeError

    return Quiet(**settings)


def _report() -> str:
    """Keep the traceback of the error being handled in a file, and say what to do with it."""
    with tempfile.NamedTemporaryFile("w", prefix="graft-", suffix=".log", delete=False, encoding="utf-8") as log:
        traceback.print_exc(file=log)
    return f"This is a defect in graft: please report it with {log.name} (see CONTRIBUTING.md). --debug shows it."


if __name__ == "__main__":
    sys.exit(main())
