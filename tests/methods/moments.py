"""Moments of a run, as the trainer gives them to a method."""

from graft.moment import Moment


def moment(step: int, of: int = 1000) -> Moment:
    """That step of a run of so many."""
    return Moment(step, step / of, max(step - 1, 0) / of)
