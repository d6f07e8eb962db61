"""Options given in Python, as keywords: `graft.tune(model=..., data=...)`. They have the types of the command line."""

import inspect
from collections.abc import Callable
from typing import Any

from graft import verbs
from graft.errors import BadInput
from graft.options.fields import converted, fields_of


def function(name: str) -> Callable[..., verbs.Result]:
    """Give a verb as a Python function that takes its options as keywords."""
    options = verbs.module(name).Options

    def verb(**given: Any) -> verbs.Result:
        return verbs.run(name, checked(name, given))

    keywords = [p.replace(kind=p.KEYWORD_ONLY) for p in inspect.signature(options).parameters.values()]
    verb.__name__ = verb.__qualname__ = name
    verb.__doc__ = options.__doc__
    verb.__signature__ = inspect.Signature(keywords, return_annotation=verbs.Result)  # type: ignore[attr-defined]
    return verb


def checked(name: str, given: dict[str, Any]) -> dict[str, Any]:
    """The options with paths and several values as the verb has them.

    Raises BadInput for options that are missing or of another type, and for a method's class that was not called.
    """
    known = {field.name: field for field in fields_of(verbs.module(name).Options)}
    if missing := [option for option, field in known.items() if field.required and option not in given]:
        raise BadInput(f"graft {name} needs {', '.join(missing)}.")
    if isinstance(method := given.get("method"), type):
        raise BadInput(f"method: got the class {method.__name__}. Call it: {method.__name__}().")
    return {key: converted(known[key], value) if key in known else value for key, value in given.items()}
