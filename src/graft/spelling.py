"""Methods as text: how methods made of others take them, and how recipes and stored adapters keep them."""

import ast
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache

from graft.errors import BadInput
from graft.method import Method, Sum, find, named


def spelled(method: Method) -> str:
    """A method as text, with the hyperparameters that are not its defaults: "lora(rank=4)+ia3()"."""
    if isinstance(method, Sum):
        return "+".join(map(spelled, method.terms))
    changed = [f.name for f in fields(method) if getattr(method, f.name) != f.default]
    return f"{type(method).slug()}({', '.join(f'{name}={getattr(method, name)!r}' for name in changed)})"


@lru_cache(maxsize=64)
def read(text: str) -> Method:
    """The method that `spelled` spelled; parentheses may be left out. Raises BadInput for what is no such text.

    Never a file: the text may stand in one of somebody else's.
    """
    try:
        given = list(_terms(ast.parse(text, mode="eval").body))
    except (SyntaxError, ValueError) as error:
        raise BadInput(
            f'{text!r} is no method. Write its name, or "lora(rank=4)", with "+" between several.'
        ) from error
    terms = [named(name, {find(name).slug(): settings}) for name, settings in given]
    return terms[0] if len(terms) == 1 else Sum(tuple(terms))


def _terms(node: ast.expr) -> Iterator[tuple[str, dict[str, object]]]:
    match node:
        case ast.BinOp(left, ast.Add(), right):
            yield from _terms(left)
            yield from _terms(right)
        case ast.Name(name):
            yield name, {}
        case ast.Call(ast.Name(name), [], keywords):
            yield name, {str(each.arg): ast.literal_eval(each.value) for each in keywords}
        case _:
            raise ValueError(ast.unparse(node))
