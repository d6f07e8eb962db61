"""Did it help: every metric of a task for two systems on the same rows, as differences with intervals."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from graft import metrics
from graft.data.task import Record
from graft.errors import BadInput
from graft.statistics import Comparison, compare


@dataclass(frozen=True)
class Outcome:
    """Comparisons by metric, the headline first. `base` and `other` name the two systems, `on` rows that are not the
    task's own."""

    base: str
    other: str
    comparisons: dict[str, Comparison]
    on: str = ""

    @property
    def headline(self) -> Comparison:
        """The comparison that decides: the task's first metric, or the one asked for."""
        return next(iter(self.comparisons.values()))

    @property
    def helped(self) -> bool:
        """Whether the headline shows that `other` is better."""
        return self.headline.outcome == "better"

    @property
    def verdict(self) -> str:
        """The headline as a sentence."""
        on = f" on {self.on}" if self.on else ""
        title = metrics.get(self.headline.metric).title
        return f"{self.other} against {self.base}{on}, {title}: {self.headline.verdict}"

    def as_json(self) -> dict[str, Any]:
        """Plain values; items that flipped are counted, and listed in items.parquet."""
        found = {}
        for name, comparison in self.comparisons.items():
            found[name] = comparison.as_json()
            if comparison.flips is not None:
                found[name]["flips"] = {
                    "improved": len(comparison.flips.improved), "worsened": len(comparison.flips.worsened),
                    "unchanged": comparison.flips.unchanged,
                }  # fmt: skip
        return {
            "base": self.base,
            "other": self.other,
            "helped": self.helped,
            "verdict": self.verdict,
            "metrics": found,
        }


def outcome(
    names: Sequence[str],
    base_records: Sequence[Record],
    other_records: Sequence[Record],
    *,
    base: str = "base",
    other: str = "adapter",
    on: str = "",
    metric: str | None = None,
    seed: int = 0,
) -> Outcome:
    """Compare two systems on every metric in `names`; `metric` is put first, and need not be among them.

    Raises BadInput for an unknown metric, or one that these records do not serve.
    """
    ordered = list(dict.fromkeys([*([metric] if metric else []), *names]))
    if not ordered:
        raise BadInput("there is no metric to compare by.")
    found = {name: compare(metrics.get(name), base_records, other_records, seed=seed) for name in ordered}
    return Outcome(base, other, found, on)


def check_metric(name: str | None, kind: str, own: Sequence[str], records: Sequence[Record]) -> None:
    """Raise BadInput when a metric cannot score such records, naming those in `own`, which the task `kind` has."""
    if name is None:
        return
    try:
        metrics.get(name).statistics(records)
    except BadInput as error:
        raise BadInput(f"--metric {name} does not serve {kind}, which has {', '.join(own)}. {error}") from error
