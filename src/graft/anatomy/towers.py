"""Finding stacks: the lists of repeated layers, the modules around them, and whether they see the future."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from torch import nn

from graft.anatomy.attention import Attention
from graft.anatomy.names import EMBEDDINGS, EXPERTS, FEED_FORWARD, FUSED_FEED_FORWARD
from graft.anatomy.site import Stack
from graft.anatomy.survey import Leaf, Survey, inside, join, parent, relative


@dataclass(frozen=True)
class Tower:
    """A list of layers: the list's own path, the layers, and how often each runs in one pass."""

    path: str
    layers: tuple[str, ...]
    repeats: int = 1


def towers(survey: Survey, attentions: Collection[str]) -> list[Tower]:
    """The outermost lists whose members hold attention; with no attention in the model, those that hold linears."""
    lists = [p for p, module in survey.modules.items() if isinstance(module, (nn.ModuleList, nn.Sequential))]
    lists = [path for path in lists if len(survey.modules[path]._modules)]
    chosen = _outermost(path for path in lists if any(inside(each, path) for each in attentions))
    if not attentions:
        deep = (path for path in lists if all(survey.leaves_under(each, "linear") for each in _members(survey, path)))
        longest = max((len(survey.modules[path]._modules) for path in lists), default=0)
        chosen = [path for path in _outermost(deep) if len(survey.modules[path]._modules) == longest]
    return [_tower(survey, path, lists, attentions) for path in chosen]


def _outermost(paths: Iterable[str]) -> list[str]:
    kept: list[str] = []
    for path in paths:
        if not any(inside(path, other) for other in kept):
            kept.append(path)
    return kept


def _members(survey: Survey, path: str) -> list[str]:
    """The members of a list, each module once."""
    members = (join(path, name) for name in survey.modules[path]._modules)
    return [member for member in members if member in survey.modules]


def _tower(survey: Survey, path: str, lists: list[str], attentions: Collection[str]) -> Tower:
    """The list at `path`, or the lists in its members where those hold whole layers (groups, stages)."""
    members = _members(survey, path)
    below = (each for each in lists if each != path and inside(each, path))
    inner = [each for each in below if all(_whole(survey, one, attentions) for one in _members(survey, each))]
    if not inner:
        # One module in several places of the list is one layer that runs as often.
        return Tower(path, tuple(members), len(survey.modules[path]._modules) // len(members))
    total = getattr(survey.config(path), "num_hidden_layers", None) or len(members)
    layers = tuple(one for each in _outermost(inner) for one in _members(survey, each))
    return Tower(path, layers, max(1, total // len(members)))


def _whole(survey: Survey, path: str, attentions: Collection[str]) -> bool:
    """Whether the module holds an attention and a feed-forward: a layer, not one sub-layer of it."""
    own = [each for each in attentions if inside(each, path)]
    rest = [p for p in survey.under(path) if not any(inside(p, each) for each in own)]
    return bool(own) and any(_feeds_forward(survey, p, path) for p in rest)


def _feeds_forward(survey: Survey, path: str, layer: str) -> bool:
    parts = relative(path, layer).split(".")
    names = {".".join(parts[-2:]), parts[-1]}
    leaf = survey.leaves.get(path)
    if leaf is not None and leaf.kind == "linear":
        return bool(names & (FEED_FORWARD.keys() | FUSED_FEED_FORWARD.keys()))
    return any(name in EXPERTS for name in survey.modules[path]._parameters)


def stacks(survey: Survey, found: list[Tower], attentions: dict[str, Attention]) -> list[tuple[Stack, Tower]]:
    """The stacks of the model in model order, named "encoder" and "decoder", or by their path where that is taken."""
    made = [_stack(survey, tower, [a for a in attentions.values() if inside(a.path, tower.path)]) for tower in found]
    names = [stack.name for stack in made]
    for paths in ([stack.path for stack in made], [tower.path for tower in found]):
        names = [_telling(path, paths) if names.count(names[i]) > 1 else names[i] for i, path in enumerate(paths)]
    names = [tower.path.replace(".", "_") if names.count(names[i]) > 1 else names[i] for i, tower in enumerate(found)]
    return [(replace(stack, name=name), tower) for stack, tower, name in zip(made, found, names, strict=True)]


def _stack(survey: Survey, tower: Tower, attentions: list[Attention]) -> Stack:
    from transformers import PreTrainedModel

    trunk = path = parent(tower.path)
    while path and not isinstance(survey.modules[path], PreTrainedModel):
        path = parent(path)
    if not isinstance(survey.modules[path], PreTrainedModel):
        path = trunk
    causal = _causal(survey, path, attentions)
    crossed = any(each.cross for each in attentions)
    embed = _embedding(survey, path)
    entries = [survey.leaves[each.entry].inputs for each in attentions]
    width = entries[0] if entries else getattr(survey.config(path), "hidden_size", 0)
    return Stack(
        name="decoder" if causal or crossed else "encoder",
        path=path,
        trunk=trunk,
        layers=tower.layers,
        width=width,
        causal=causal,
        embed=embed.path if embed else None,
        embed_width=embed.outputs if embed else 0,
        repeats=tower.repeats,
    )


def _causal(survey: Survey, path: str, attentions: list[Attention]) -> bool:
    """The attention says whether it is causal; where it does not, the configuration's causal model does."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

    for each in attentions:
        said = vars(survey.modules[each.path]).get("is_causal")
        if said is not None and not each.cross:
            return bool(said)
    config = survey.config(path)
    kind = type(config)
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING and (
        kind not in MODEL_FOR_MASKED_LM_MAPPING or getattr(config, "is_decoder", False)
    )


def _embedding(survey: Survey, path: str) -> Leaf | None:
    found = survey.leaves_under(path, "embedding")
    words = getattr(survey.config(path), "vocab_size", None)
    named = [each for each in found if each.path.rpartition(".")[2] in EMBEDDINGS]
    return next(iter(named or [each for each in found if each.inputs == words]), None)


def _telling(path: str, others: list[str]) -> str:
    """The first component of `path` that sets it apart from the other stacks; the whole path where none does."""
    rest = [other.split(".") for other in others if other != path]
    for depth, part in enumerate(path.split(".")):
        if part and all(other[depth : depth + 1] != [part] for other in rest):
            return part
    return path.replace(".", "_") or "stack"
