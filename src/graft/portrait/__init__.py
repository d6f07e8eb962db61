"""Portraits: all that can be known of a method by looking at it, as the catalogue shows it."""

from graft.portrait.costs import Costs, costs
from graft.portrait.counting import formula
from graft.portrait.merging import merges
from graft.portrait.portrait import Portrait, drawn, portrait, properties
from graft.portrait.showing import show

__all__ = ["Costs", "Portrait", "costs", "drawn", "formula", "merges", "portrait", "properties", "show"]
