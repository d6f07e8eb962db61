"""A transformer block with the sites that a method touches: one description, drawn by two writers."""

from graft.drawing.block import Mark, marks, reference
from graft.drawing.svg import svg
from graft.drawing.terminal import terminal

__all__ = ["Mark", "marks", "reference", "svg", "terminal"]
