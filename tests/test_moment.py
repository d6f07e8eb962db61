"""When a moment of a run is over, is reached, and comes again: by steps and by shares of runs of any length."""

from hypothesis import given
from hypothesis import strategies as st

from methods.moments import moment


@given(st.integers(1, 300), st.integers(1, 10))
def test_a_share_is_reached_once_and_is_over_from_then_on(length: int, tenths: int) -> None:
    run = [moment(step, of=length) for step in range(length + 1)]
    reached = [step for step in run if step.reaches(None, tenths / 10)]
    assert len(reached) == 1
    assert [step.over(None, tenths / 10) for step in run] == [step >= reached[0] for step in run]
    assert reached[0] / length >= tenths / 10 > (reached[0] - 1) / length


@given(st.integers(0, 300), st.integers(1, 50))
def test_numbers_of_steps_are_what_they_say(step: int, steps: int) -> None:
    now = moment(step)
    assert now.over(steps, 0.5) == (step >= steps) and now.reaches(steps, 0.5) == (step == steps)
    assert now.every(steps, 0.5) == (step in range(steps, 301, steps))


@given(st.integers(10, 300))
def test_a_tenth_of_the_run_is_done_ten_times(length: int) -> None:
    assert sum(moment(step, of=length).every(None, 0.1) for step in range(length + 1)) == 10
