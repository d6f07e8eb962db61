"""A site: a named place in a model, known from the configuration alone and bound to live modules when grafted."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from graft.errors import BadInput, Refused

LINEAR_ROLES = ("q", "k", "v", "o", "gate", "up", "down")
# Roles that are places around modules, with no weight of their own.
PAIR_ROLES = ("attention", "ffn", "layer", "stack", "experts")
ROLES = (*LINEAR_ROLES, "experts", "attention", "ffn", "layer", "embed", "norm", "head", "stack", "module")


@dataclass(frozen=True)
class Rows:
    """The share one role owns of a fused projection's output axis.

    The axis is read as (groups, per_group, width); the role owns [start:stop] of every group. Contiguous thirds of
    GPT-2's c_attn are one group of three; GPT-NeoX interleaves per head: `heads` groups of three.
    """

    groups: int
    per_group: int
    start: int
    stop: int
    width: int

    @property
    def size(self) -> int:
        """Number of output features the role owns."""
        return self.groups * (self.stop - self.start) * self.width

    def take(self, whole: Tensor, axis: int) -> Tensor:
        """The role's share of `whole` along `axis`, in the role's own order."""
        axis %= whole.dim()
        split = whole.unflatten(axis, (self.groups, self.per_group, self.width))
        return split.narrow(axis + 1, self.start, self.stop - self.start).flatten(axis, axis + 2)

    def put(self, whole: Tensor, share: Tensor, axis: int) -> Tensor:
        """A copy of `whole` whose share along `axis` is `share`."""
        axis %= whole.dim()
        split = whole.unflatten(axis, (self.groups, self.per_group, self.width))
        part = share.unflatten(axis, (self.groups, self.stop - self.start, self.width))
        before = split.narrow(axis + 1, 0, self.start)
        after = split.narrow(axis + 1, self.stop, self.per_group - self.stop)
        return torch.cat((before, part, after), axis + 1).flatten(axis, axis + 2)


@dataclass(frozen=True)
class Heads:
    """Attention heads: queries, keys and values, and the width of one."""

    query: int
    key: int
    width: int


@dataclass(frozen=True)
class Site:
    """One place a method can act on. `name` is unique in the model and does not depend on the class it is wrapped in.

    Paths are dotted and start at the model that was examined. `entry`, `exit`, `residual` and `norm` are set where the
    role is a pair of points (`attention`, `ffn`, `layer`): `entry` is the module whose *input* enters the sub-layer,
    `exit` the module whose *output* leaves it (before dropout, residual and norm), `residual` the module whose *input*
    is the residual stream, `norm` the layer norm that is applied after the residual was added (post-norm models only).
    """

    name: str
    role: str
    path: str
    stack: str = "decoder"
    layer: int | None = None
    cross: bool = False
    inputs: int = 0
    outputs: int = 0
    parameter: str = "weight"
    bias_parameter: str = "bias"
    rows: Rows | None = None
    transposed: bool = False
    batch: tuple[int, ...] = ()
    repeats: int = 1
    entry: str | None = None
    exit: str | None = None
    residual: str | None = None
    norm: str | None = None
    heads: Heads | None = None
    module: Any = field(default=None, compare=False, repr=False)
    norm_module: nn.Module | None = field(default=None, compare=False, repr=False)
    tokenizer: Callable[[str], Any] | None = field(default=None, compare=False, repr=False)

    def bind(self, model: nn.Module, tokenizer: Callable[[str], Any] | None = None) -> "Site":
        """This site with its live modules of `model`, and a tokenizer for methods that begin from words."""
        norm = model.get_submodule(self.norm) if self.norm else None
        return replace(self, module=model.get_submodule(self.path), norm_module=norm, tokenizer=tokenizer)

    def token_ids(self, text: str) -> list[int]:
        """The ids of `text`, without special tokens. Raises BadInput when no tokenizer was given to `graft.attach`."""
        if self.tokenizer is None:
            raise BadInput(
                f"a start from the words {text!r} needs a tokenizer: graft.attach(..., tokenizer=tokenizer)."
            )
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[call-arg]

    @property
    def looked_up(self) -> bool:
        """Whether what enters is ids, whose columns of the weight are looked up."""
        return isinstance(self.module, nn.Embedding)

    def key_heads(self) -> "Heads":
        """The heads of an attention's keys and values. Raises Refused at any other site."""
        if self.heads is None:
            raise Refused(f"keys and values belong at an attention, and {self.name} is none. Choose sites='attention'.")
        return self.heads

    @property
    def start(self) -> str:
        """The module that gives the site its place in model order: a feed-forward's own may be its whole layer."""
        return self.entry if self.role == "ffn" and self.entry else self.path

    @property
    def window(self) -> int | None:
        """How many tokens an attention sees to each side it sees, itself included; None where it sees all."""
        config = getattr(self.module, "config", None)
        return getattr(self.module, "sliding_window", getattr(config, "sliding_window", None))

    @property
    def weight(self) -> Tensor:
        """The role's dense weight, (*batch, outputs, inputs), whatever way the model stores it."""
        return self.view(self.parameter)

    @property
    def bias(self) -> Tensor | None:
        """The role's bias, (outputs,), or None where the module has none."""
        return self.view(self.bias_parameter) if getattr(self.module, self.bias_parameter, None) is not None else None

    def view(self, parameter: str) -> Tensor:
        """The role's dense view of one of the module's parameters. Raises Refused where the module has none."""
        stored = getattr(self.module, parameter, None)
        if stored is None:
            raise Refused(
                f"{self.name} has no {parameter} of its own, being made of other modules. Choose sites that have one, "
                "such as 'q v' or 'all-linear'."
            )
        return self.share(parameter, stored)

    def share(self, parameter: str, stored: Tensor) -> Tensor:
        """The role's share, oriented (out, in), of a tensor shaped as the module stores `parameter`."""
        matrix = parameter == self.parameter and stored.dim() >= 2
        if matrix and self.transposed:
            stored = stored.transpose(-1, -2)
        return stored if self.rows is None else self.rows.take(stored, -2 if matrix else -1)

    def place(self, parameter: str, stored: Tensor, value: Tensor) -> Tensor:
        """`stored` with the role's share replaced by `value`, in the module's own orientation."""
        matrix = parameter == self.parameter and stored.dim() >= 2
        if matrix and self.transposed:
            return self._with(stored.transpose(-1, -2), value, -2).transpose(-1, -2)
        return self._with(stored, value, -2 if matrix else -1)

    def _with(self, stored: Tensor, value: Tensor, axis: int) -> Tensor:
        return value if self.rows is None else self.rows.put(stored, value, axis)


@dataclass(frozen=True)
class Stack:
    """One tower of layers: where its inputs arrive, where its output leaves, and what it is made of.

    `path` is the module that takes `input_ids`/`inputs_embeds` and the padding mask (`model`, `bert`, `encoder`);
    `trunk` the module whose output is the last hidden state, before any pooler (`bert.encoder`; often `path` itself);
    `embed` its token embedding. `causal` says whether token t sees only tokens up to t.
    """

    name: str
    path: str
    trunk: str
    layers: tuple[str, ...]
    width: int
    causal: bool
    embed: str | None = None
    embed_width: int = 0
    repeats: int = 1
