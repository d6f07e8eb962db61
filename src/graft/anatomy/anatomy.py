"""What a model is made of: stacks, sites by role, head, embeddings and tied parameters, as plain data."""

from dataclasses import dataclass

from torch import nn

from graft.anatomy.attention import attentions
from graft.anatomy.layers import head_sites, layer_sites, stack_sites
from graft.anatomy.site import Site, Stack
from graft.anatomy.survey import Leaf, Survey, inside
from graft.anatomy.towers import stacks, towers


@dataclass(frozen=True)
class Anatomy:
    """The anatomy of one model; it holds no modules, so it serves as well for a model without weights.

    `sites` are all sites by role, unbound, in model order. `head` is the module that gives the task's output, the last
    of `head_paths`; a pooler inside the base model is not part of it. `tied` are the groups of parameter paths that
    share storage, `causal` says whether the last stack sees only the past. `leaves` are the modules a glob may name,
    `tree` is every module as (path, class, shapes) for showing.
    """

    stacks: tuple[Stack, ...]
    sites: tuple[Site, ...]
    head_paths: tuple[str, ...]
    tied: tuple[tuple[str, ...], ...]
    leaves: tuple[Leaf, ...]
    tree: tuple[tuple[str, str, str], ...]

    @property
    def head(self) -> str | None:
        """The path of the module that gives the task's output, or None for a bare model."""
        return self.head_paths[-1] if self.head_paths else None

    @property
    def causal(self) -> bool:
        """Whether the last stack sees only the past: a language model that generates left to right."""
        return bool(self.stacks) and self.stacks[-1].causal

    def roles(self) -> dict[str, int]:
        """Every role this model has and the number of its sites."""
        counts: dict[str, int] = {}
        for site in self.sites:
            counts[site.role] = counts.get(site.role, 0) + 1
        return counts


def examine(model: nn.Module) -> Anatomy:
    """The anatomy of a model, from names and shapes alone: works on `meta`, and for models outside the table of names.

    A model without any list of layers has no stacks and no roles; globs over module paths still reach its modules.
    """
    survey = Survey(model)
    found = attentions(survey)
    made = stacks(survey, towers(survey, found), found)
    heads = _head_paths(survey, [stack for stack, _ in made])
    sites: list[Site] = []
    layers = [layer for stack, _ in made for layer in stack.layers]
    outside: set[str] = set()
    for stack, _ in made:
        # Two stacks may share the module that holds them, and with it embedding and norms: the first has them.
        own = [site for site in stack_sites(survey, stack, layers) if site.role == "stack" or site.path not in outside]
        outside |= {site.path for site in own}
        sites += own
        for index in range(len(stack.layers)):
            sites += layer_sites(survey, stack, index, found)
    sites += head_sites(survey, heads)
    order = survey.order
    return Anatomy(
        stacks=tuple(stack for stack, _ in made),
        sites=tuple(sorted(sites, key=lambda site: order[site.start])),
        head_paths=heads,
        tied=_tied(model),
        leaves=tuple(survey.leaves.values()),
        tree=tuple((path, type(module).__name__, _shapes(module)) for path, module in survey.modules.items()),
    )


def _head_paths(survey: Survey, found: list[Stack]) -> tuple[str, ...]:
    """The root's own children that are neither the base model nor an embedding and hold parameters."""
    from transformers import PreTrainedModel

    if not found or any(not stack.path for stack in found):
        return ()
    heads = []
    for name, module in survey.model._modules.items():
        base = isinstance(module, (PreTrainedModel, nn.Embedding)) or any(inside(stack.path, name) for stack in found)
        if module is not None and not base and next(module.parameters(), None) is not None:
            heads.append(name)
    return tuple(heads)


def _tied(model: nn.Module) -> tuple[tuple[str, ...], ...]:
    groups: dict[object, list[str]] = {}
    for path, parameter in model.named_parameters(remove_duplicate=False):
        stored = parameter.data_ptr() if parameter.device.type != "meta" else 0
        groups.setdefault((stored, parameter.shape) if stored else id(parameter), []).append(path)
    return tuple(tuple(paths) for paths in groups.values() if len(paths) > 1)


def _shapes(module: nn.Module) -> str:
    own = {name: tuple(p.shape) for name, p in module._parameters.items() if p is not None}
    return ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in own.items())
