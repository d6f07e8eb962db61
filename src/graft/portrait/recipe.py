"""How a method is tried: one line, on a base that takes it."""

from collections.abc import Sequence
from contextlib import ExitStack

from torch import nn

from graft import catalogue
from graft.attach import attach, detach
from graft.errors import GraftError
from graft.method import Method, Sum, find
from graft.portrait.models import decoder, encoder

BASES = {"sprout": decoder, "google-bert/bert-base-uncased": encoder}
OTHERS = ("one", "two")  # adapters for a method that is made of others
HOST = "lora"  # what these are


def recipe(method: Method) -> str:
    """The command that gives an adapter of it; "" where no small base takes it as it stands."""
    made = method.made_of(OTHERS)
    terms = method.terms if isinstance(method, Sum) else (method,)
    rows = "mixed.jsonl" if any(term.needs_tasks for term in terms) else "reviews.jsonl"
    tune = f"--data {rows} --method {'+'.join(catalogue.written(type(term)) for term in terms)}"
    if (base := _base(method)) is not None:
        return f"graft tune --model {base} {tune}"
    if made != method and (base := _base(made, OTHERS)) is not None:
        return f"graft tune --model {base} {tune} --upon {' '.join(f'runs/{name}/adapter' for name in OTHERS)}"
    return next((term.made_by for term in terms if term.made_by), "")


def _base(method: Method, others: Sequence[str] = ()) -> str | None:
    """The first base that takes the method, beside adapters of these names."""
    return next((base for base, model in BASES.items() if _takes(model(), method, others)), None)


def _takes(model: nn.Module, method: Method, others: Sequence[str]) -> bool:
    with ExitStack() as on:
        try:
            for name, each in [*((name, find(HOST)()) for name in others), ("default", method)]:
                attach(model, each, name)
                on.callback(detach, model, name)
        except GraftError:
            return False
    return True
