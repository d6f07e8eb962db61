"""How a method is tried: one line, on a base that takes it."""

from graft.attach import attach, detach
from graft.errors import GraftError
from graft.method import Method
from graft.portrait.models import decoder, encoder

BASES = {"sprout": decoder, "google-bert/bert-base-uncased": encoder}


def recipe(method: Method) -> str:
    """The command that tunes with it as it stands; "" where it needs more than a base, such as other adapters."""
    for base, model in BASES.items():
        try:
            attach(model(), method)
        except GraftError:
            continue
        detach(model())
        named = "+".join(term.slug() for term in method.methods())
        return f"graft tune --model {base} --data reviews.jsonl --method {named}"
    return ""
