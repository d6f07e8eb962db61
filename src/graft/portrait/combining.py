"""What a method can be put together with: every sum with another one is tried on a small decoder without weights."""

from graft import catalogue
from graft.attach import attach, detach
from graft.errors import GraftError
from graft.method import Method, find
from graft.portrait.models import decoder


def refused(method: Method) -> dict[str, str]:
    """The methods, by name, that cannot be in a sum with this one, and why. All others that fit a decoder can."""
    model, found = decoder(), {}
    own = {type(term).slug() for term in method.methods()}
    for name in catalogue.methods():
        if name in own:
            continue  # a second adapter of the same kind is another setting of the first
        try:
            attach(model, alone := find(name)())
            detach(model)
        except GraftError:
            continue
        except Exception:
            if catalogue.outside(find(name)) is None:
                raise
            continue  # a method of somebody else that breaks: its own page tells where
        try:
            attach(model, method + alone)
            detach(model)
        except GraftError as error:
            found[name] = str(error)
    return found
