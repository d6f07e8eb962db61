"""The sites of one stack, one layer and the head."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

from graft.anatomy.attention import Attention
from graft.anatomy.feedforward import FeedForward, feed_forwards
from graft.anatomy.norms import norm_first, surroundings
from graft.anatomy.site import Site, Stack
from graft.anatomy.survey import Survey, inside, parent, relative

Prefix = Callable[[str, str], str]
PLAIN = ("LayerNorm", "layer_norm", "norm")


def stack_sites(survey: Survey, stack: Stack, layers: list[str]) -> Iterator[Site]:
    """The sites of a stack outside all layers: the stack itself, its embedding, its norms."""
    width = stack.width
    yield Site(stack.name, "stack", stack.trunk, stack.name, inputs=width, outputs=width)
    if stack.embed:
        leaf = survey.leaves[stack.embed]
        yield Site(
            f"{stack.name}.embed", "embed", leaf.path, stack.name,
            inputs=leaf.inputs, outputs=leaf.outputs, transposed=leaf.transposed,
        )  # fmt: skip
    for leaf in survey.leaves_under(stack.path, "norm"):
        if any(inside(leaf.path, layer) for layer in layers):
            continue
        seen = relative(leaf.path, stack.path)
        short = parent(seen) if seen.rpartition(".")[2] in PLAIN and parent(seen) else seen
        yield Site(
            f"{stack.name}.norm.{short}", "norm", leaf.path, stack.name, inputs=leaf.inputs, outputs=leaf.outputs
        )


def head_sites(survey: Survey, heads: tuple[str, ...]) -> Iterator[Site]:
    """One site for each linear of the task head."""
    for path in heads:
        for leaf in survey.leaves_under(path, "linear"):
            yield Site(
                f"head.{leaf.path}", "head", leaf.path, "head",
                inputs=leaf.inputs, outputs=leaf.outputs, transposed=leaf.transposed,
            )  # fmt: skip


def layer_sites(survey: Survey, stack: Stack, index: int, attentions: dict[str, Attention]) -> Iterator[Site]:
    """Every site of one layer: the layer, its attentions, feed-forwards and norms."""
    layer = stack.layers[index]
    own = [each for each in attentions.values() if inside(each.path, layer)]
    taken = [path for each in own for path in (each.path, each.exit)]
    blocks = feed_forwards(survey, layer, taken)
    first = norm_first(survey, stack.path, stack.trunk)
    blank = Site(
        f"{stack.name}.{index}", "layer", layer, stack.name, index,
        inputs=stack.width, outputs=stack.width, repeats=stack.repeats,
    )  # fmt: skip
    yield replace(blank, name=f"{blank.name}.layer")
    prefix = _prefixes(blank.name)
    for each in own:
        yield from _attention_sites(survey, blank, prefix, layer, each, first)
    routed = [block.anchor for block in blocks if block.experts]
    for block in blocks:
        inner = block.experts is None and any(inside(block.anchor, path) for path in routed)
        yield from _feed_forward_sites(survey, blank, prefix, layer, block, first, inner)
    for leaf in survey.leaves_under(layer, "norm"):
        name = f"{blank.name}.norm.{relative(leaf.path, layer)}"
        yield replace(blank, name=name, role="norm", path=leaf.path, inputs=leaf.inputs, outputs=leaf.outputs)


def _prefixes(name: str) -> Prefix:
    """Names for the sub-layers of one layer: the first of each group is plain, a further one adds where it stands."""
    seen: set[str] = set()

    def prefix(group: str, where: str) -> str:
        base = f"{name}.cross" if group == "cross" else name
        first = group not in seen
        seen.add(group)
        return base if first else f"{base}.{where}"

    return prefix


def _attention_sites(
    survey: Survey, blank: Site, prefix: Prefix, layer: str, each: Attention, first: bool
) -> Iterator[Site]:
    kind: Literal["cross", "attention"] = "cross" if each.cross else "attention"
    name = prefix(kind, relative(each.path, layer))
    around = surroundings(survey, layer, kind, each.path, each.entry, each.exit, first)
    here = replace(blank, cross=each.cross, heads=each.heads)
    yield replace(
        here, name=f"{name}.attention", role="attention", path=each.path,
        entry=each.entry, exit=each.exit, residual=around.residual, norm=around.norm,
        inputs=survey.leaves[each.entry].inputs, outputs=survey.leaves[each.exit].outputs,
    )  # fmt: skip
    for role, (leaf, rows) in each.projections.items():
        yield replace(
            here, name=f"{name}.{role}", role=role, path=leaf.path, rows=rows, transposed=leaf.transposed,
            inputs=leaf.inputs, outputs=rows.size if rows else leaf.outputs,
        )  # fmt: skip


def _feed_forward_sites(
    survey: Survey,
    blank: Site,
    prefix: Prefix,
    layer: str,
    block: FeedForward,
    first: bool,
    inner: bool,
) -> Iterator[Site]:
    """The sites of one block; one `inner` to a routed block (an expert, a shared expert) is no sub-layer of its own."""
    name = prefix("ffn", relative(block.experts or block.anchor, layer))
    entry, exit = block.entry, block.exit
    if entry and exit and not inner:
        around = surroundings(survey, layer, "ffn", block.path, entry, exit, first)
        yield replace(
            blank, name=f"{name}.ffn", role="ffn", path=block.path, entry=entry, exit=exit,
            residual=around.residual, norm=around.norm,
        )  # fmt: skip
    for role, made in block.projections.items():
        yield replace(
            blank, name=f"{name}.{role}", role=role, path=made.path, inputs=made.inputs, outputs=made.outputs,
            rows=made.rows, transposed=made.transposed, parameter=made.parameter, bias_parameter=made.bias,
            batch=made.batch,
        )  # fmt: skip
    if block.experts is not None:
        batch = next((made.batch for made in block.projections.values()), ())
        yield replace(blank, name=f"{name}.experts", role="experts", path=block.experts, batch=batch)
