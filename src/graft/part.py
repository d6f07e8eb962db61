"""A part: the trainable tensors of one method at one site, its verbs, and how tensors start."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput, Refused

if TYPE_CHECKING:
    from graft.attach.around import Inner
    from graft.attach.call import Call

Activation = Literal["relu", "gelu", "gelu_new", "silu", "tanh"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
    "gelu_new": partial(nn.functional.gelu, approximate="tanh"),
    "silu": nn.functional.silu,
    "tanh": torch.tanh,
}

VERBS = ("before", "after", "params", "keys_values", "tokens", "around")


class Part(nn.Module):
    """The trainable tensors of one method at one site, and what they do there.

    Subclasses are final: they own Parameters and buffers (no `nn.Linear`, which the next "all-linear" or a quantizer
    would find) and define verbs. Verbs are pure in their arguments: with gradient checkpointing they run twice.
    """

    dropout: float = 0.0
    length: int = 0  # virtual tokens or keys it adds; real tokens' positions move by as many
    reads_residual: bool = False  # whether `after` asks the call for the residual stream
    reads_input: bool = False  # whether `keys_values` asks the call for what enters the attention
    reads_row: Literal["embeds", "states"] | None = None  # what `tokens` at `embed` asks the call for, of whole rows
    trims: bool = True  # whether the outputs at virtual tokens are cut off again
    chains: bool = False  # whether `around` takes what enters a layer for what its part left of the one before
    halves: bool = False  # whether `around` runs the two halves of a layer apart
    replaces: tuple[str, ...] = ()  # parameters of its site that it gives anew, whatever others make of them
    listens: bool = False  # whether it only looks at what passes its site, and changes nothing there
    rate: float = 1.0  # its learning rate over its method's: what sums over many hidden numbers takes small steps
    whole: bool = False  # whether it trains every entry of its site's matrix by itself, as full fine-tuning does
    in_layer: int | None = None  # which layer it acts in, where its method has to know
    off: frozenset[bool] = frozenset()  # in which modes, training or not, it does nothing for now

    def before(self, x: Tensor, site: Site, call: "Call") -> Tensor:
        """What enters the site instead of `x`."""
        raise NotImplementedError

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        """What leaves the site instead of `y`, given what entered."""
        raise NotImplementedError

    def reads(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        """What an adapter computes of what it adds to `y`: `y` itself, unless it says otherwise."""
        return y

    def params(self, site: Site) -> dict[str, Tensor]:
        """New values by parameter name: `weight` dense (out, in), `bias` (out,); the engine puts them in place."""
        raise NotImplementedError

    def keys_values(self, site: Site, call: "Call") -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values, each (n, key heads, width), or (rows, n, ...) for each of `call.tasks`; a gate or None.

        A gate (heads,) means their own softmax; one (rows, queries) multiplies keys and values within the common one,
        for each query.
        """
        raise NotImplementedError

    def tokens(self, call: "Call") -> Tensor:
        """Virtual tokens: (n, embedding width) at `embed`, (n, width) at a `layer`, which gives none to the next.

        With `reads_row` each row has its own: (batch, n, embedding width).
        """
        raise NotImplementedError

    def around(self, inner: "Inner", x: Tensor, site: Site, call: "Call") -> Tensor:
        """What leaves a `layer` that is fed `x`; `inner` runs it. The part's tensors are in their own precision here.

        A layer that gives more than its hidden states, as T5's do, has to run at least once.
        """
        raise NotImplementedError

    @classmethod
    def verbs(cls) -> frozenset[str]:
        """The verbs this part defines."""
        return frozenset(verb for verb in VERBS if getattr(cls, verb) is not getattr(Part, verb))

    def changed(self, site: Site) -> int:
        """Entries of the base that differ after merging."""
        return sum(value.numel() for value in self.params(site).values()) if "params" in self.verbs() else 0

    def bound(self, site: Site) -> int:
        """Upper bound on the rank of the update to the site's matrix; 0 where no matrix changes."""
        changes_matrix = "params" in self.verbs() and site.parameter in self.params(site) and site.weight.dim() > 1
        return min(site.inputs, site.outputs) if changes_matrix else 0

    def borrow(self, other: "Part") -> None:
        """Use another part's tensors without owning them: they are registered, saved and counted once, elsewhere."""
        self.lent = (*getattr(self, "lent", ()), other)

    def low_rank(self, site: Site, rank: int) -> "Part":
        """Refuse a site without a matrix, and a rank the site has no room for."""
        if site.weight.dim() < 2:
            raise Refused(
                f"{type(self).__name__} cannot act at {site.name}: its weight is a vector and a low-rank update needs "
                "a matrix. Choose other sites."
            )
        if rank > min(site.inputs, site.outputs):
            raise BadInput(
                f"rank {rank} at {site.name}, a {site.outputs} by {site.inputs} matrix: choose at most "
                f"{min(site.inputs, site.outputs)}."
            )
        return self

    def matrix(self, site: Site, looked_up: bool = True) -> "Part":
        """Refuse a site whose weight is not one matrix, and unless `looked_up` one whose inputs are ids."""
        if site.weight.dim() == 2 and (looked_up or not site.looked_up):
            return self
        kind = "an embedding" if site.weight.dim() == 2 else "a vector" if site.weight.dim() < 2 else "a stack of them"
        raise Refused(
            f"{type(self).__name__} cannot act at {site.name}: it changes the matrix of a linear map, and the weight "
            f"there is {kind}. Choose other sites."
        )

    @property
    def rests(self) -> bool:
        """Whether it does nothing just now."""
        return self.training in self.off

    def decayed(self) -> Iterable[nn.Parameter]:
        """What weight decay acts on: matrices, not vectors such as biases, unless they are a matrix's entries."""
        return (parameter for parameter in self.parameters() if parameter.dim() > 1)

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        """Take the sizes of stored tensors that are about to be put in; for parts whose sizes training decides."""

    def drop(self, x: Tensor) -> Tensor:
        """Dropout on the part's own branch: active in training mode only."""
        return nn.functional.dropout(x, self.dropout, self.training)

    def _apply(self, fn: Callable, recurse: bool = True) -> "Part":
        # `model.to(bfloat16)` moves a part but never rounds it: adapters train in fp32 under a half-precision base.
        def keep_dtype(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return tensor.to(moved.device) if moved.dtype != tensor.dtype else moved

        return super()._apply(keep_dtype, recurse)


class StandIn(Part):
    """Trains a site's own parameters through copies, so that the base stays untouched. Used for task heads."""

    def __init__(self, site: Site, names: Sequence[str] = ("weight", "bias")) -> None:
        super().__init__()
        self.names = tuple(name for name in names if getattr(site.module, name, None) is not None)
        self.replaces = self.names
        for name in self.names:
            self.register_parameter(name, nn.Parameter(site.view(name).detach().clone().float()))

    def params(self, site: Site) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in self.names}


def kaiming(*shape: int) -> nn.Parameter:
    """A (…, out, in) parameter with U(±1/√in) entries: `kaiming_uniform` with a = √5, as linear layers start."""
    bound = shape[-1] ** -0.5
    return nn.Parameter(torch.empty(*shape).uniform_(-bound, bound))


def pair(site: Site, rank: int) -> tuple[nn.Parameter, nn.Parameter]:
    """A (…, rank, in) and B (…, out, rank) of a product that starts as 0: B is, or A where ids are looked up in it."""
    if site.looked_up:
        return zeros(rank, site.inputs), normal(site.outputs, rank, std=1.0)
    return kaiming(*site.batch, rank, site.inputs), zeros(*site.batch, site.outputs, rank)


def normal(*shape: int, std: float) -> nn.Parameter:
    """A parameter with N(0, std²) entries."""
    return nn.Parameter(torch.empty(*shape).normal_(0.0, std))


def zeros(*shape: int) -> nn.Parameter:
    """A parameter of zeros."""
    return nn.Parameter(torch.zeros(*shape))
