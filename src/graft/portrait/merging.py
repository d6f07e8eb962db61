"""Whether a method can be merged into the weights: tried on a model with biases and on one without."""

from torch import nn

from graft.attach import attach, detach, merge, unmerge
from graft.errors import Refused
from graft.method import Method
from graft.portrait.models import decoder, encoder


def merges(method: Method) -> tuple[str, str]:
    """ "yes", "no", "where the model has biases" or "is in the weights"; and why not, where it is refused."""
    if any(term.in_place for term in method.methods()):
        return "is in the weights", ""
    without_biases = _refusal(decoder(), method)
    if not without_biases:
        return "yes", ""
    with_biases = _refusal(encoder(), method)
    return ("no", with_biases) if with_biases else ("where the model has biases", without_biases)


def _refusal(model: nn.Module, method: Method) -> str:
    attach(model, method)
    try:
        merge(model)
        unmerge(model)
    except Refused as refusal:
        return str(refusal).removeprefix("'default' cannot be merged: ")
    finally:
        detach(model)
    return ""
