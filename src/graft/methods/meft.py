"""MEFT (Liao, Tan, Monz 2023, arXiv 2306.00477): the base made reversible, so that a forward keeps no activations.

    y₁ = λ x₁ + F(x₂),   y₂ = β x₂ + G(y₁)        x₂ = (y₂ − G(y₁)) / β,   x₁ = (y₁ − F(x₂)) / λ

Both streams begin as the embeddings, and the head reads their mean. A is a bottleneck N(0, 0.02²) with ReLU.

    variant 1   F = block with A beside its FFN,         G = A,                          λ = s, β = 1, then y₁ ↔ y₂
    variant 2   F = A,                                   G = block with A beside its FFN, λ = 1, β = s, then y₁ ↔ y₂
    variant 3   F = attention with A behind it,          G = FFN with A beside it,        λ = β = s

Block, attention and FFN are with their own residuals and norms, whichever side these are on. In backward a chain of
autograd functions goes from the last streams back to the first, running each F and G again with the random numbers of
its forward. Not the base at the start, but near it for a small s. Plainly computed, and keeping what that keeps, where
rows use different adapters, a cache is filled or the model is compiled; refused with activation checkpointing.

Departure, which `exact=False` takes back: dividing by s = 0.1 costs a decimal digit in each block (two in variant 3),
so that in fp32 nothing is left of the activations of six blocks (three) further down, whatever the gradients then are.
Here streams are multiples of 2⁻³⁰ in fp64, and what λ and β shift out is kept, half a byte for each entry, as
BDIA-transformers do (arXiv 2407.09093): activations are had again bit for bit, under half precision too. Either way
the two streams that come out at the embeddings must be one again, or the backward is refused.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import get_device_states, set_device_states

from graft.anatomy.site import Site
from graft.errors import Refused
from graft.method import Method, Part, check, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.around import Inner
    from graft.attach.call import Call

GRID, STD, HALVES, TOLERANCE = 2.0**-30, 0.02, 16, 1e-3


class Bottleneck(Part):
    """A: one bottleneck, without a residual of its own."""

    def __init__(self, site: Site, bottleneck: int) -> None:
        super().__init__()
        self.down, self.down_bias = normal(bottleneck, site.outputs, std=STD), zeros(bottleneck)
        self.up, self.up_bias = normal(site.outputs, bottleneck, std=STD), zeros(site.outputs)

    def add(self, x: Tensor) -> Tensor:
        """A(x), in the precision of `x`."""
        down, down_bias, up, up_bias = (t.to(x.dtype) for t in (self.down, self.down_bias, self.up, self.up_bias))
        return F.linear(F.relu(F.linear(x, down, down_bias)), up, up_bias)


class Beside(Bottleneck):
    """A beside a sub-layer: it reads what the sub-layer reads."""

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return y + self.add(x)


class Behind(Bottleneck):
    """A behind a sub-layer."""

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        return y + self.add(y)


class Reversible(Bottleneck):
    """One block of the chain, and the bottleneck that is F or G in variants 1 and 2."""

    chains = True

    def __init__(self, site: Site, owner: "MEFT", blocks: int) -> None:
        super().__init__(site, owner.bottleneck)
        self.variant, self.exact, self.blocks, self.halves = owner.variant, owner.exact, blocks, owner.variant == 3
        times = round(1 / owner.share)
        self.times = {1: (times, 1), 2: (1, times), 3: (times, times)}[owner.variant]
        if self.halves:
            del self.down, self.down_bias, self.up, self.up_bias

    def f(self, inner: "Inner", x: Tensor) -> Tensor:
        """F of this block."""
        return inner.first(x) if self.halves else inner(x) if self.variant == 1 else self.add(x)

    def g(self, inner: "Inner", x: Tensor) -> Tensor:
        """G of this block."""
        return inner.second(x) if self.halves else inner(x) if self.variant == 2 else self.add(x)

    def around(self, inner: "Inner", x: Tensor, site: Site, call: "Call") -> Tensor:
        key = call.own("streams")
        one, two, seen, tape = call.carried.get(key) or (x, x, x, Tape())
        if x is not seen and not torch.equal(x, seen):
            raise Refused(
                f"MEFT: something changes what enters {site.path}, which is two streams that have to be had again. "
                "Leave out the other method that acts at layers, or MEFT."
            )
        if torch.is_grad_enabled() and inner.reversible and not torch.compiler.is_compiling():
            again = Again(self, inner.alone(), x.dtype, _autocast(x))
            if not self.exact and (x.dtype.itemsize < 4 or again.autocast["enabled"]):
                raise Refused("MEFT: in half precision nothing can be had again with exact=False. Use exact=True.")
            one, two = Chain.apply(again, inner, tape, one, two, *inner.needs())
        else:
            wide = torch.promote_types(x.dtype, torch.float32)
            first = one.to(wide) / self.times[0] + self.f(inner, two.to(x.dtype)).to(wide)
            second = two.to(wide) / self.times[1] + self.g(inner, first.to(x.dtype)).to(wide)
            one, two = (first, second) if self.halves else (second, first)
        seen = ((one + two) / 2).to(x.dtype)
        call.carried[key] = (one, two, seen, tape)
        return seen


class Tape:
    """What one backward hands down a chain: the streams behind block `place`, of the `depth` blocks that ran."""

    def __init__(self) -> None:
        self.depth, self.place = 0, -1
        self.streams: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Again:
    """What it takes to run one block again: the part, its layer, and the precision it ran in."""

    part: Reversible
    inner: "Inner"
    dtype: torch.dtype
    autocast: dict[str, Any]

    def held(self, x: Tensor) -> Tensor:
        """`x` as streams hold it."""
        if not self.part.exact:
            return x.to(torch.promote_types(self.dtype, torch.float32))
        return (x.double() / GRID).round() * GRID

    def divided(self, x: Tensor, times: int) -> tuple[Tensor, Tensor]:
        """A stream divided by a whole number, and what is lost by that, two entries to a byte."""
        if not self.part.exact or times == 1:
            return x / times, x.new_empty(0, dtype=torch.uint8)
        quotient = (x / (times * GRID)).floor() * GRID
        lost = ((x - times * quotient) / GRID).to(torch.uint8).flatten()
        low, high = F.pad(lost, (0, len(lost) % 2)).view(-1, 2).unbind(1)
        return quotient, low + HALVES * high

    def multiplied(self, y: Tensor, lost: Tensor, times: int) -> Tensor:
        """The stream that was divided."""
        if not lost.numel():
            return y * times
        entries = torch.stack((lost % HALVES, lost // HALVES), 1).flatten()[: y.numel()]
        return y * times + entries.view(y.shape) * GRID

    def derived(
        self, run: Callable[["Inner", Tensor], Tensor], x: Tensor, grad: Tensor, draws: "Draws"
    ) -> tuple[Tensor, list[Tensor | None]]:
        """F or G of `x` as in the forward, and the derivatives along `grad`: by `x` and by all that it needs."""
        x = x.to(self.dtype).detach().requires_grad_()
        with torch.enable_grad(), torch.autocast(**self.autocast), draws.repeated(), self.inner.again() as inner:
            y = run(inner, x)
            found = torch.autograd.grad(y, [x, *inner.needs()], grad.to(y.dtype), allow_unused=True)
        return self.held(y.detach()), list(found)


class Chain(torch.autograd.Function):
    """One block: (x₁, x₂) to (y₁, y₂), keeping neither, unless it is the last one."""

    @staticmethod
    def forward(
        ctx: Any, again: Again, inner: "Inner", tape: Tape, x1: Tensor, x2: Tensor, *needs: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The outputs, in the order in which the next block takes them."""
        part = again.part
        ctx.again, ctx.tape, ctx.place, ctx.dtypes = again, tape, tape.depth, (x1.dtype, x2.dtype)
        tape.depth += 1
        x1, x2 = again.held(x1), again.held(x2)
        ctx.draws = [Draws.now(x1, part.training)]
        y1, lost1 = again.divided(x1, part.times[0])
        y1 = y1 + again.held(part.f(inner, x2.to(again.dtype)))
        ctx.draws.append(Draws.now(x1, part.training))
        y2, lost2 = again.divided(x2, part.times[1])
        y2 = y2 + again.held(part.g(inner, y1.to(again.dtype)))
        last = (y1, y2) if tape.depth == part.blocks else ()
        ctx.save_for_backward(lost1, lost2, *last)
        return (y1, y2) if part.halves else (y2, y1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        """Derivatives along (g₁, g₂) at the outputs, with the inputs had again from the outputs on the tape."""
        again, tape, part = ctx.again, ctx.tape, ctx.again.part
        lost1, lost2, *last = ctx.saved_tensors
        if not last and (tape.streams is None or tape.place != ctx.place):
            raise Refused(
                "MEFT: a backward begins at the last block it runs in, and this one did not: a block was left out, as "
                "layerdrop does, or the loss is of a layer below. Set layerdrop to 0, and use the last hidden states."
            )
        y1, y2 = last or (tape.streams if part.halves else tape.streams[::-1])
        g1, g2 = grads if part.halves else grads[::-1]
        out, (by_y1, *by_g) = again.derived(part.g, y1, g2, ctx.draws[1])
        x2 = again.multiplied(y2 - out, lost2, part.times[1])
        g1 = g1 + by_y1
        out, (by_x2, *by_f) = again.derived(part.f, x2, g1, ctx.draws[0])
        x1 = again.multiplied(y1 - out, lost1, part.times[0])
        if ctx.place == 0:
            _one_again(x1, x2)
        tape.place, tape.streams = ctx.place - 1, (x1, x2) if ctx.place else None
        found = (g1 / part.times[0], g2 / part.times[1] + by_x2)
        sums = [a if b is None else b if a is None else a + b for a, b in zip(by_f, by_g, strict=True)]
        return None, None, None, *(g.to(dtype) for g, dtype in zip(found, ctx.dtypes, strict=True)), *sums


@dataclass(frozen=True)
class Draws:
    """The states of the random number generators before something drew from them; none in evaluation mode."""

    host: Tensor | None = None
    devices: tuple[int, ...] = ()
    states: tuple[Tensor, ...] = ()

    @classmethod
    def now(cls, x: Tensor, training: bool) -> "Draws":
        """The states of this moment, on the host and where `x` is."""
        if not training:
            return cls()
        devices, states = get_device_states(x)
        return cls(torch.get_rng_state(), tuple(devices), tuple(states))

    @contextmanager
    def repeated(self) -> Iterator[None]:
        """Within the `with`, the same numbers are drawn again."""
        if self.host is None:
            yield
            return
        with torch.random.fork_rng(devices=self.devices):
            torch.set_rng_state(self.host)
            set_device_states(list(self.devices), list(self.states))
            yield


def _one_again(x1: Tensor, x2: Tensor) -> None:
    """Refuse streams that were one when they entered the first block, and now are two."""
    if x1.is_meta or not bool((x1 - x2).norm() > TOLERANCE * x2.norm()):
        return
    raise Refused(
        f"MEFT: the activations could not be had again: at the embeddings they are off by "
        f"{float((x1 - x2).norm() / x2.norm()):.0e}. Use exact=True; where that is so, a kernel of the base computes "
        "otherwise the second time (torch.use_deterministic_algorithms(True) may help)."
    )


def _autocast(x: Tensor) -> dict[str, Any]:
    kind = x.device.type
    if not torch.amp.is_autocast_available(kind):
        kind = "cpu"
    on = torch.is_autocast_enabled(kind)
    return {"device_type": kind, "enabled": on, "dtype": torch.get_autocast_dtype(kind), "cache_enabled": False}


@dataclass(frozen=True)
class MEFT(Method):
    """The base made reversible: activations are computed again from the last ones, so that next to none are kept."""

    variant: Annotated[Literal[1, 2, 3], "F and G: 1 block and adapter; 2 adapter and block; 3 attention and FFN"] = 1
    bottleneck: Annotated[int, "width of the bottlenecks, two for each block"] = 8
    share: Annotated[float, "s, how much of a stream stays beside F and G: λ, β or both, one over a whole number"] = 0.1
    top: Annotated[int, "only so many blocks at the top of each stack; 0: all of them"] = 0
    exact: Annotated[bool, "keep what λ and β shift out, half a byte for each activation; False: as published"] = True

    family: ClassVar[str] = "side"
    learning_rate: ClassVar[float] = 3e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "bottleneck")
        check(self.top >= 0, self, "top", "must be at least 0", "Try 0, which is all blocks.")
        whole = 0 < self.share <= 1 and 1 <= round(1 / self.share) <= HALVES
        rule = f"must be one over a whole number up to {HALVES}, or what it shifts out is no half a byte"
        check(whole and abs(round(1 / self.share) * self.share - 1) < 1e-6, self, "share", rule, "Try 0.1.")

    def expression(self) -> str:
        return f"layer {'attention ' if self.variant == 3 else ''}ffn" + (f" @ top {self.top}" if self.top else "")

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        grown: list[tuple[Site | None, Part]] = []
        for site in sites:
            if site.role == "layer":
                blocks = sum(other.repeats for other in sites if other.role == "layer" and other.stack == site.stack)
                grown.append((site, Reversible(site, self, blocks)))
            elif not site.cross:
                grown.append((site, (Beside if site.role == "ffn" else Behind)(site, self.bottleneck)))
        return grown

    def sizes(self) -> tuple[str, ...]:
        return ("bottleneck",)

    def count(self, sites: Sequence[Site]) -> int:
        r, own = self.bottleneck, [site for site in sites if not site.cross and self._counts(site)]
        return sum(2 * site.outputs * r + r + site.outputs for site in own)

    def _counts(self, site: Site) -> bool:
        """Whether there is a bottleneck at a site."""
        return site.role != "layer" or self.variant != 3
