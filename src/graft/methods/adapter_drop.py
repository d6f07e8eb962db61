"""AdapterDrop (Rücklé et al. 2021, arXiv 2010.11918): no adapters in the first blocks, which makes all of it faster.

    specialized   blocks 0 … n−1 have none, in training and after:  (1 − n/L) of the host's parameters
    robust        blocks 0 … k−1 go without,  k ~ U{0, …, n} in each step;  afterwards as many as `served` says

The host is any method whose parts act in blocks; in an encoder-decoder each stack loses its first blocks. Nothing below
the first adapter needs a graph then, so a backward ends there. A robust adapter is served whole, or specialized for any
number up to n. Norms in front of the blocks go too, or the graph would begin there. The paper also prunes what is
fused: that is `keep` of `AdapterFusion`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput, Refused
from graft.method import Method, Moment, Part, check, positive
from graft.spelling import read, spelled

if TYPE_CHECKING:
    from graft.attach.adapter import Adapter


@dataclass(frozen=True)
class AdapterDrop(Method):
    """Another method without its parts in the first blocks, always or at random in each step."""

    host: Annotated["str | Method", 'the other method, as in "pfeiffer" or "lora(rank=4)"'] = "pfeiffer"
    drop: Annotated[int | None, "n, how many of the first blocks go without; by default five of twelve"] = None
    robust: Annotated[bool, "draw how many go without in each step of training, from 0 to n"] = False
    served: Annotated[int, "with robust: how many go without when it is evaluated, stored and served"] = 0

    family: ClassVar[str] = "function"

    def __post_init__(self) -> None:
        if isinstance(self.host, Method):
            object.__setattr__(self, "host", spelled(self.host))
        super().__post_init__()
        check(isinstance(self.host, str), self, "host", "must be a method or text", 'Try "pfeiffer".')
        positive(self, "drop")
        most = "" if self.drop is None else f" and at most drop, {self.drop},"
        fits = self.served == 0 or (self.robust and 0 < self.served <= (self.drop or self.served))
        check(fits, self, "served", f"must be at least 0{most} and needs robust", "Try 0.")
        if self.hosted.in_place:
            raise Refused(f"AdapterDrop: {self.host} trains the base's own tensors and has no parts to drop.")
        if self.hosted.needs_tasks or getattr(self.hosted, "tasks", None):
            raise Refused(
                f"AdapterDrop: {self.host} tells tasks apart across blocks, if only one. Choose another host."
            )
        for name in ("family", "learning_rate", "start", "needs_adapters"):
            object.__setattr__(self, name, getattr(self.hosted, name))

    @property
    def hosted(self) -> Method:
        """The host as a method."""
        return read(str(self.host))

    def methods(self) -> tuple[Method, ...]:
        terms = self.hosted.methods()
        return (self,) if terms == (self.hosted,) else tuple(replace(self, host=term) for term in terms)

    def made_of(self, adapters: tuple[str, ...]) -> Method:
        return replace(self, host=self.hosted.made_of(adapters))

    def upon(self, adapters: "Mapping[str, Adapter]") -> tuple[Method, Mapping[str, Tensor]]:
        host, tensors = self.hosted.upon(adapters)
        return replace(self, host=host), tensors

    def expression(self) -> str:
        return self.hosted.expression()

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        grown = self.hosted.grow(self._above(sites))
        if self.robust and any("around" in part.verbs() for _, part in grown):
            raise Refused(f"AdapterDrop: {self.host} runs its blocks as one chain, which none may leave: robust=False.")
        for site, part in grown:
            part.in_layer = None if site is None else site.layer
        self._rest([part for _, part in grown], 0)
        return grown

    def count(self, sites: Sequence[Site]) -> int:
        return self.hosted.count(self._above(sites))

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Tensor]], parts: Sequence[Part]) -> None:
        self.hosted.prepare(model, batches, parts)

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: Moment, parts: Sequence[Part]
    ) -> Tensor | None:
        if self.robust and phase == "forward":
            # Of the step alone, so that all terms, all processes and a resumed run draw the same.
            blocks = 1 + max((part.in_layer for part in parts if part.in_layer is not None), default=0)
            self._rest(parts, Random(step).randint(0, self._without(blocks)))
        return self.hosted.during(phase, step, parts)

    @property
    def reads_gradients(self) -> bool:
        return self.hosted.reads_gradients

    def settled(self, step: Moment) -> bool:
        return self.hosted.settled(step)

    def remarks(self, sites: Sequence[Site]) -> tuple[str, ...]:
        return self.hosted.remarks(self._above(sites))

    def groups(self, parts: Sequence[Part]) -> list[dict[str, Any]]:
        return self.hosted.groups(parts)

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        return self.hosted.deployed(
            {key: part for key, part in parts.items() if part.in_layer is None or part.in_layer >= self.served}
        )

    def serving(self) -> Method:
        host = self.hosted.serving()
        if not self.robust:
            return replace(self, host=host)
        return replace(self, host=host, drop=self.served, robust=False, served=0) if self.served else host

    def _rest(self, parts: Sequence[Part], training: int) -> None:
        """Let parts in the first blocks do nothing: in as many as said in training, in `served` else."""
        for part in parts:
            if part.in_layer is not None:
                without = {True: training, False: self.served}
                part.off = frozenset(mode for mode, blocks in without.items() if part.in_layer < blocks)

    def _without(self, blocks: int) -> int:
        """n, in a stack of so many blocks."""
        return max(1, 5 * blocks // 12) if self.drop is None else self.drop

    def _above(self, sites: Sequence[Site]) -> list[Site]:
        """The host's sites, without those up to the last block that goes without in each stack."""
        outside = [site.name for site in sites if site.layer is None and site.role != "norm"]
        if outside or not sites:
            where = f"acts at {outside[0]}, outside of the blocks" if outside else "names no sites"
            raise Refused(f"AdapterDrop: {self.host} {where}. Choose a host that acts in blocks alone.")
        if again := [site.name for site in sites if site.repeats > 1]:
            raise Refused(f"AdapterDrop: {again[0]} is in one module that runs as several blocks: none can go without.")
        kept: list[Site] = []
        for stack in dict.fromkeys(site.stack for site in sites):
            own = [site for site in sites if site.stack == stack]
            layers = [-1 if site.layer is None else site.layer for site in own]
            without = self._without(1 + max(layers))
            if without > max(layers):
                raise BadInput(
                    f"AdapterDrop: without the first {without} blocks nothing is left in the {stack}, where "
                    f"{self.host} reaches block {max(layers)} at most. Choose drop={max(max(layers), 1)} or less."
                )
            if self.served > without:
                raise BadInput(f"AdapterDrop: served must be at most {without} in the {stack}, got {self.served}.")
            first = next(at for at, layer in enumerate(layers) if layer >= without)
            kept += own if self.robust else own[first:]
        return kept
