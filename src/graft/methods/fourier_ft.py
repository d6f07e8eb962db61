"""FourierFT (Gao et al. 2024, arXiv 2405.03003): train a few entries of the update's two-dimensional spectrum.

    W′ = W + α·Re(IDFT₂(F)),   F ∈ R^{out×in} zero but for n trained entries at random places

The places are the same at all sites of one shape: the first n of a permutation drawn from `seed`, as Hugging Face PEFT
draws it; they are stored with the adapter, because what a seed draws depends on the library's version. IDFT₂ divides
by out·in, so α is in the hundreds. The entries begin as N(0, 1) as in the paper, which is not the base;
`init="zeros"` is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from graft.anatomy.site import Site
from graft.errors import BadInput
from graft.method import Method, Part, check, normal, positive, zeros


class Places(Part):
    """Where the spectrum of one shape is not zero, in the flattened matrix."""

    def __init__(self, size: int, entries: int, seed: int) -> None:
        super().__init__()
        drawn = torch.randperm(size, generator=torch.Generator().manual_seed(seed), device="cpu")[:entries]
        self.at: Tensor
        self.register_buffer("at", drawn.to(torch.int32).to(torch.empty(0).device))


class Spectrum(Part):
    """The n entries of one site's spectrum."""

    def __init__(self, site: Site, places: Places, scale: float, init: str) -> None:
        super().__init__()
        self.matrix(site)
        self.borrow(places)
        self.c = zeros(len(places.at)) if init == "zeros" else normal(len(places.at), std=1.0)
        self.scale = scale

    def params(self, site: Site) -> dict[str, Tensor]:
        at = self.lent[0].at.to(self.c.device, torch.int64)
        spectrum = self.c.new_zeros(site.outputs * site.inputs).scatter(0, at, self.c)
        update = self.scale * torch.fft.ifft2(spectrum.view(site.outputs, site.inputs)).real
        return {site.parameter: site.weight.to(update.dtype) + update}

    def bound(self, site: Site) -> int:
        return min(2 * len(self.c), site.inputs, site.outputs)


@dataclass(frozen=True)
class FourierFT(Method):
    """A few trained frequencies of the weight's update: very few parameters, high rank. Merges without a trace."""

    frequencies: Annotated[int, "trained entries of each spectrum"] = 1000
    scale: Annotated[float, "α, what the update is multiplied by"] = 150.0
    init: Annotated[Literal["normal", "zeros"], "how entries begin; with zeros it starts as the base"] = "normal"
    seed: Annotated[int, "what the places of the entries are drawn from"] = 777
    sites: Annotated[str, "where to put an update"] = "q v"

    family: ClassVar[str] = "parameter"
    learning_rate: ClassVar[float] = 1e-1
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "frequencies")
        check(self.scale != 0, self, "scale", "must not be 0, which would leave the base as it is", "Try 150.")
        check(self.seed >= 0, self, "seed", "must be at least 0", "Try 777.")
        if self.init == "zeros":
            object.__setattr__(self, "start", "exact")

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        shared: dict[tuple[int, int], Places] = {}
        parts: list[tuple[Site | None, Part]] = []
        for site in sites:
            shape, size = (site.outputs, site.inputs), site.outputs * site.inputs
            if self.frequencies > size:
                raise BadInput(
                    f"FourierFT: {self.frequencies} frequencies at {site.name}, whose matrix has {size} entries: "
                    f"choose at most {size}."
                )
            if shape not in shared:
                shared[shape] = Places(size, self.frequencies, self.seed)
            parts.append((site, Spectrum(site, shared[shape], self.scale, self.init)))
        return [*((None, places) for places in shared.values()), *parts]

    def sizes(self) -> tuple[str, ...]:
        return ("frequencies",)

    def count(self, sites: Sequence[Site]) -> int:
        return self.frequencies * len(sites)
