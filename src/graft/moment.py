"""Where in its run a step is, for methods that do something when so many steps, or so much of the run, are over."""

import math


class Moment(int):
    """The number of an optimizer step, from 0, that knows how much of the run (0 to 1) is over when it begins.

    `before` is how much was over when the step before it began.
    """

    share: float
    before: float

    def __new__(cls, step: int, share: float, before: float) -> "Moment":
        """At `step`, with `share` of the run over."""
        moment = super().__new__(cls, step)
        moment.share, moment.before = share, before
        return moment

    def over(self, steps: int | None, share: float) -> bool:
        """Whether that many steps are over; without a number, whether that much of the run is."""
        return self.share >= share if steps is None else self >= steps

    def reaches(self, steps: int | None, share: float) -> bool:
        """Whether it is the first step of which `over` is true."""
        return self.before < share <= self.share if steps is None else self == steps

    def every(self, steps: int | None, share: float) -> bool:
        """Whether another such number of steps, or such part of the run, has just been done."""
        if steps is not None:
            return self > 0 and self % steps == 0
        done, earlier = (math.floor(part / share + 1e-9) for part in (self.share, self.before))
        return done > earlier
