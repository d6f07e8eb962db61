"""Finding attention: modules by the names of their projections, their heads, and the share of each role."""

from dataclasses import dataclass

from graft.anatomy.names import ATTENTION, CROSS, FUSED_ATTENTION, HEAD_COUNTS, HEAD_WIDTHS, OUTPUT_BESIDE, Fusion
from graft.anatomy.site import Heads, Rows
from graft.anatomy.survey import Leaf, Survey, parent


@dataclass(frozen=True)
class Attention:
    """One attention: the module that computes it, its projections with their shares, and where it is entered and left.

    `projections` maps q, k, v and o to a linear and its rows (None where the role owns the whole linear).
    """

    path: str
    projections: dict[str, tuple[Leaf, Rows | None]]
    entry: str
    exit: str
    heads: Heads | None
    cross: bool


def attentions(survey: Survey) -> dict[str, Attention]:
    """Every attention of the model by path, in model order."""
    found = (attention(survey, path) for path in survey.modules)
    return {each.path: each for each in found if each is not None}


def attention(survey: Survey, path: str) -> Attention | None:
    """The attention whose projections are children of the module at `path`, if it is one."""
    module = survey.modules[path]
    if not module._modules:
        return None
    leaves = {role: survey.child(path, ATTENTION[role]) for role in ("q", "k", "v")}
    fused, fusion = _fused(survey, path)
    named = type(module).__name__.endswith("Attention")
    if not (all(leaves.values()) or fused or named):
        return None
    output = survey.child(path, ATTENTION["o"])
    if output is None and (leaves["q"] or fused):
        output = survey.child(parent(path), OUTPUT_BESIDE)
    if output is None:
        return None
    projections: dict[str, tuple[Leaf, Rows | None]] = {role: (each, None) for role, each in leaves.items() if each}
    heads = _heads(survey, path, projections, fused, output)
    if fused and fusion and heads:
        projections |= {role: (fused, rows) for role, rows in _shares(fusion, heads, "q" in projections).items()}
    projections["o"] = (output, None)
    return Attention(path, projections, _entry(survey, path, projections), output.path, heads, _is_cross(path))


def _is_cross(path: str) -> bool:
    return any(part in CROSS for part in path.split("."))


def _entry(survey: Survey, path: str, projections: dict[str, tuple[Leaf, Rows | None]]) -> str:
    if "q" in projections and "k" in projections:
        return projections["q"][0].path
    # Projections in several steps (multi-head latent attention): the first linear is what the input enters.
    return survey.leaves_under(path, "linear")[0].path


def _fused(survey: Survey, path: str) -> tuple[Leaf | None, Fusion | None]:
    owner = type(survey.modules[path]).__name__
    for name, fusion in FUSED_ATTENTION.items():
        plain = name.rpartition(".")[2]
        if (found := survey.child(path, (plain,))) and name in (plain, f"{owner}.{plain}"):
            return found, FUSED_ATTENTION.get(f"{owner}.{plain}", fusion)
    return None, None


def _heads(
    survey: Survey, path: str, projections: dict[str, tuple[Leaf, Rows | None]], fused: Leaf | None, output: Leaf
) -> Heads | None:
    """Heads from the widths of the projections; only the width of one head is read from module or configuration."""
    width = _head_width(survey, path, output)
    if width is None or output.inputs % width:
        return None
    query = output.inputs // width
    if fused is not None:
        # A fused projection beside a separate query holds keys and values only.
        both = fused.outputs // width - (0 if "q" in projections else query)
        exact = fused.outputs % width == 0 and both > 0 and both % 2 == 0
        return Heads(query, both // 2, width) if exact else None
    key, value = projections.get("k"), projections.get("v")
    if key is None or value is None or key[0].outputs % width:
        return None
    return Heads(query, key[0].outputs // width, width)


def _head_width(survey: Survey, path: str, output: Leaf) -> int | None:
    own, config = vars(survey.modules[path]), survey.config(path)
    # The module's own fields first: a configuration's may differ from layer to layer, and then refuses to be read.
    for read in (own.get, lambda name: getattr(config, name, None)):
        for name in HEAD_WIDTHS:
            if isinstance(width := read(name), int) and width > 0:
                return width
        for name in HEAD_COUNTS:
            if isinstance(count := read(name), int) and count > 0 and output.inputs % count == 0:
                return output.inputs // count
    return None


def _shares(fusion: Fusion, heads: Heads, separate_query: bool) -> dict[str, Rows]:
    """The rows of each role, in units of one head: groups of (query, key, value) heads in the fusion's order."""
    groups = heads.key if fusion.groups is None else fusion.groups
    sizes = {"q": heads.query // groups, "k": heads.key // groups, "v": heads.key // groups}
    order = [role for role in fusion.order if role != "q" or not separate_query]
    per_group = sum(sizes[role] for role in order)
    shares, start = {}, 0
    for role in order:
        shares[role] = Rows(groups, per_group, start, start + sizes[role], heads.width)
        start += sizes[role]
    return shares
