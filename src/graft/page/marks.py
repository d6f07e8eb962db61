"""How contestants are told apart: a color and a shape each. Seven shapes and eight colors make 56 pairs."""

import math
from dataclasses import dataclass

COLORS = 8  # --c0 … --c7 of page.css


def _polygon(corners: int, radius: float, turn: float, inner: float | None = None) -> str:
    """A regular polygon, or with `inner` a star, as the path of an SVG."""
    count = corners * (1 if inner is None else 2)
    points = []
    for at in range(count):
        size = radius if inner is None or at % 2 == 0 else inner
        angle = math.radians(turn + 360 * at / count)
        points.append(f"{size * math.cos(angle):.2f} {size * math.sin(angle):.2f}")
    return "M" + "L".join(points) + "Z"


# Of about equal area, around the origin.
SHAPES = (
    "M-5 0A5 5 0 1 1 5 0A5 5 0 1 1-5 0Z",  # circle
    _polygon(4, 6.3, 45),  # square
    _polygon(3, 6.8, -90),  # triangle
    _polygon(4, 6.5, 0),  # diamond
    _polygon(3, 6.8, 90),  # triangle upside down
    "M-2-6H2V-2H6V2H2V6H-2V2H-6V-2H-2Z",  # plus
    _polygon(5, 7.2, -90, 3.3),  # star
)


@dataclass(frozen=True)
class Mark:
    """A contestant's color and shape; hollow where nothing of the base is adapted."""

    color: int
    shape: int
    hollow: bool


def mark(place: int, kind: str) -> Mark:
    """The mark of the contestant at that place of the standings."""
    return Mark(place % COLORS, place % len(SHAPES), kind != "method")
