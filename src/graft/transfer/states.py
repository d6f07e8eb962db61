"""What passes the sites of a model, without a gradient: heard by an adapter that changes nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.attach import attach, detach, use
from graft.method import Method, Part

if TYPE_CHECKING:
    from graft.attach.call import Call

NAME = "heard-by-graft"
Streams = dict[str, Tensor]


class Ear(Part):
    """Keeps what passed a site last, (tokens, width) each: what entered, what left, the residual stream, their sum."""

    listens = True

    def __init__(self, points: Sequence[str]) -> None:
        super().__init__()
        self.points, self.heard = tuple(points), dict[str, Tensor]()
        self.reads_residual = bool({"residual", "normed"} & set(points))
        self.nothing = nn.Parameter(torch.zeros(1), requires_grad=False)  # there is no adapter without a tensor

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        ways: dict[str, Callable[[], Tensor]] = {
            "x": lambda: x, "y": lambda: y, "residual": lambda: call.residual(site),
            "normed": lambda: call.normed(site, y),
        }  # fmt: skip
        self.heard = {point: ways[point]().flatten(0, -2) for point in self.points}
        return y


@dataclass(frozen=True)
class Listening(Method):
    """Ears at sites, by name."""

    points: Annotated[tuple[tuple[str, tuple[str, ...]], ...], "names of sites, and what to hear there"] = ()

    def expression(self) -> str:
        return " ".join(name for name, _ in self.points)

    def build(self, site: Site) -> Part:
        return Ear(dict(self.points)[site.name])

    def count(self, sites: Sequence[Site]) -> int:
        return 0


class Heard:
    """A model with ears, until it is left: `streams(ids)` runs it on one row of token ids."""

    def __init__(self, model: nn.Module, points: Mapping[str, Sequence[str]]) -> None:
        self.model, self.points = model, tuple((name, tuple(each)) for name, each in points.items())

    def __enter__(self) -> "Heard":
        self.training = self.model.training
        self.adapter = attach(self.model, Listening(self.points), NAME, head=False)
        self.model.eval()
        return self

    def __exit__(self, *error: object) -> None:
        detach(self.model, NAME)
        self.model.train(self.training)

    @torch.no_grad()
    def streams(self, ids: Sequence[int]) -> dict[str, Streams]:
        """What passed each site, by its name; an encoder-decoder reads the row on both sides."""
        row = torch.tensor([list(ids)], device=next(self.model.parameters()).device)
        config = self.model.config
        inputs = {"decoder_input_ids": row} if config.is_encoder_decoder else {}  # type: ignore[union-attr]
        with use(self.model, NAME):
            self.model(input_ids=row, attention_mask=torch.ones_like(row), **inputs)
        parts = self.adapter.parts.items()
        return {name: part.heard for name, part in parts if isinstance(part, Ear)}
