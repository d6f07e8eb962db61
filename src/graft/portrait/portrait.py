"""One method in full: what it computes, where it acts, what it costs, and what it goes with."""

from dataclasses import dataclass, field, fields

from graft import catalogue
from graft.attach import attach, detach
from graft.drawing import Mark, marks, reference
from graft.errors import GraftError
from graft.method import Method, Sum
from graft.portrait import combining, counting, written
from graft.portrait.choosing import Advice, advice
from graft.portrait.merging import merges
from graft.portrait.recipe import recipe
from graft.portrait.structure import structure
from graft.spelling import spelled

UNDRAWN: tuple[Mark, ...] = ()
HOSTS = ("pfeiffer", "pfeiffer")  # of an example


@dataclass(frozen=True)
class Portrait:
    """What is known of a method. `undrawn` says why it cannot be on a small decoder: then there is no drawing, no
    structure, and nothing about merging and sums.

    trains: what it trains on a decoder, as a formula, or "". recipe: a command that gives an adapter of it, or "".
    drawn_as: what the drawing, the structure and the rest of it are of, where that is not the method as it stands.
    refused: the methods that cannot be in a sum with it, and why. origin: where a method that is not graft's own comes
    from.
    """

    name: str
    class_name: str
    family: str
    summary: str
    origin: str
    description: str
    formulas: list[str]
    source: str
    settings: list[written.Setting]
    learning_rate: float
    start: str
    sites: str
    trains: str
    recipe: str
    merges: str
    unmergeable: str
    structure: dict[str, str]
    refused: dict[str, str]
    advice: list[Advice]
    undrawn: str = ""
    drawn_as: str = ""
    marks: tuple[Mark, ...] = field(default=UNDRAWN, repr=False)


def portrait(method: Method) -> Portrait:
    """The portrait of a method with the hyperparameters it has. A sum is described term by term."""
    kind, terms = type(method), method.methods()
    kinds = [type(term) for term in terms] if kind is Sum else [kind]
    texts = [written.description(each) for each in kinds]
    entries = [entry for each in kinds if (entry := catalogue.outside(each))]
    found, traits, undrawn = UNDRAWN, {}, ""
    can, why = "", ""
    shown = example(method)
    try:
        found, traits = drawn(shown), properties(shown)
        can, why = merges(shown)
    except GraftError as error:
        undrawn = str(error)
    names = {each.slug() for each in kinds}
    return Portrait(
        name="+".join(each.slug() for each in kinds),
        class_name=" + ".join(each.__name__ for each in kinds),
        family=method.family,
        summary=" ".join((each.__doc__ or "").partition("\n")[0] for each in kinds),
        origin="; ".join(entry.origin for entry in entries),
        description="\n\n".join(texts),
        formulas=[line for text in texts for line in written.formulas(text)],
        source="; ".join(filter(None, map(written.source, texts))),
        settings=written.settings(method),
        learning_rate=method.learning_rate,
        start=max((term.start for term in terms), key=["exact", "near", "elsewhere"].index),
        sites="; ".join(filter(None, (term.expression() for term in terms))),
        trains=counting.formula(method),
        recipe=recipe(method),
        merges=can,
        unmergeable=why,
        structure=traits,
        refused={} if undrawn else combining.refused(shown),
        advice=advice(names, traits.get("workspace", "")),
        undrawn=undrawn,
        drawn_as=spelled(shown) if shown != method and not undrawn else "",
        marks=found,
    )


def example(method: Method) -> Method:
    """The method itself; one that is made of others and names none, with some of them."""
    settings = {each.name: getattr(method, each.name) for each in fields(method)}
    if settings.get("hosts") == ():
        return type(method)(**settings | {"hosts": HOSTS})
    if settings.get("host") == "" and "train_bridge" in settings:
        return type(method)(**settings | {"host": HOSTS[0], "train_bridge": True})
    return method


def properties(method: Method) -> dict[str, str]:
    """The structural properties with the module's complexity. Raises what `attach` raises on a small decoder.

    A vector and stored tokens cost nothing that grows, what reads other tokens costs by their number T, and a network
    by what the numbers of one layer grow with, where a formula says that. What is in place has none.
    """
    found = structure(method)
    inside = set(found["intra-connectivity"].split("; "))
    if found["insertion form"] == "in place":
        return {**found, "module complexity": "no module of its own"}
    if "dense: across tokens" in inside:
        grows = "T"
    else:
        grows = "1" if inside <= {"none: parameter vector", "dense: embedding"} else counting.growth(method)
    return {**found, "module complexity": f"O({grows})" if grows else "no one power of a size"}


def drawn(method: Method) -> tuple[Mark, ...]:
    """What it does to the block that is drawn. Raises what `attach` raises."""
    adapter = attach(reference(), method)
    try:
        return marks(adapter)
    finally:
        detach(reference())
