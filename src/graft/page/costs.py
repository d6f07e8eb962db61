"""What a contestant costs: every kind of cost with its title, its unit, which way is cheaper, and the Pareto line."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graft.page import words


@dataclass(frozen=True)
class Cost:
    """A kind of cost. `unit` is what an axis shows after a decimal prefix."""

    key: str
    title: str
    unit: str
    text: Callable[[float], str]
    lower_is_cheaper: bool = True

    def shown(self, value: float | None) -> str:
        """The value in words, or a dash."""
        return words.NOTHING if value is None else self.text(value)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else words.short(value)


def _in(unit: str) -> Callable[[float], str]:
    return lambda value: f"{words.short(value)} {unit}"


KNOWN = (
    Cost("trainable", "trainable parameters", "", _count),
    Cost("changed", "changed parameters", "", _count),
    Cost("rank", "rank", "", _count),
    Cost("stored_bytes", "stored size", "B", lambda value: words.prefixed(value, "B")),
    Cost("training_seconds", "training time", "s", words.seconds),
    Cost("tokens_per_second", "training speed", "tokens/s", _in("tokens/s"), False),
    Cost("peak_bytes", "peak memory", "B", lambda value: f"{value / 2**20:,.0f} MiB"),
    Cost("flops", "training compute", "FLOP", lambda value: words.prefixed(value, "FLOP")),
    Cost("energy_kwh", "energy", "kWh", _in("kWh")),
    Cost("latency_ms", "latency, attached", "ms", _in("ms")),
    Cost("latency_merged_ms", "latency, merged", "ms", _in("ms")),
    Cost("rows_per_second", "throughput, attached", "rows/s", _in("rows/s"), False),
    Cost("rows_per_second_merged", "throughput, merged", "rows/s", _in("rows/s"), False),
    Cost("forgetting", "forgetting, loss on other text", "nats/token", lambda value: f"{words.number(value, 3)}"),
)


def cost(key: str) -> Cost:
    """The cost of that name; one that is not known is shown as it stands."""
    return next((each for each in KNOWN if each.key == key), Cost(key, key.replace("_", " "), "", words.short))


def measured(lines: Iterable[Mapping[str, Any]]) -> list[Cost]:
    """The costs that at least one of the lines has, in the usual order."""
    seen = {key for line in lines for key, value in (line.get("costs") or {}).items() if value is not None}
    usual = [each for each in KNOWN if each.key in seen]
    return usual + [cost(key) for key in sorted(seen - {each.key for each in KNOWN})]


def missing(lines: Sequence[Mapping[str, Any]]) -> list[Cost]:
    """The usual costs that none of the lines has."""
    have = {each.key for each in measured(lines)}
    return [each for each in KNOWN if each.key not in have]


def front(
    points: Iterable[tuple[str, float, float]], *, lower_is_cheaper: bool = True, higher_is_better: bool = True
) -> list[str]:
    """The names on the Pareto line of (name, cost, score), cheapest first: nothing as cheap scores higher.

    Of two with the same cost and score both are on it.
    """
    turned = [
        (spent if lower_is_cheaper else -spent, -score if higher_is_better else score, name)
        for name, spent, score in points
    ]
    on: list[tuple[float, float, str]] = []
    for each in sorted(turned):
        if not on or each[1] < on[-1][1] or each[:2] == on[-1][:2]:
            on.append(each)
    return [name for _, _, name in on]
