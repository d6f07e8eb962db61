"""Finding sites by role in any model: the table of names, discovery, and the language of site expressions."""

from graft.anatomy.anatomy import Anatomy, examine
from graft.anatomy.selection import Missing, Selection, select
from graft.anatomy.site import Heads, Rows, Site, Stack
from graft.anatomy.skeletons import skeleton

__all__ = ["Anatomy", "Heads", "Missing", "Rows", "Selection", "Site", "Stack", "examine", "select", "skeleton"]
