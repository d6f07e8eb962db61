"""What the page and the report both say in words: who is cheapest, how it was done, by whom, how many trials."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

from graft.page import costs, words
from graft.page.items import Kept
from graft.page.standings import Plain


def cheapest(standings: Plain) -> list[Plain]:
    """For each cost that the answer names: its title, the contestant, and the sentence; one for each contestant."""
    found = (standings["answer"].get("cheapest") or {}).items()
    return [{"title": costs.cost(key).title, **each} for key, each in found if each and each.get("contestant")]


def metric_words(metric: Plain) -> str:
    """`Accuracy in %`."""
    name = metric["title"][:1].upper() + metric["title"][1:]
    unit = metric["unit"]
    unit = f" {unit}" if unit.startswith("per ") else f" in {unit}" if unit else ""
    return f"{name}{unit}{'' if metric['higher_is_better'] else ' (lower is better)'}"


def level(standings: Plain) -> str:
    """`95 %`."""
    return f"{100 * standings['protocol'].get('level', 0.95):g} %"


def protocol(standings: Plain) -> list[tuple[str, str]]:
    """The settings of the protocol, in words."""
    found = standings["protocol"]
    known = [("seeds", _listed(found["seeds"]))]
    known += [(name, _listed(found[name])) for name in ("trials", "sizes", "resamples") if found.get(name) is not None]
    return [*known, ("training", words.settings(found.get("training")) or words.NOTHING)]


def contestants(standings: Plain) -> list[Plain]:
    """Who took part, with settings and what was searched, in words."""
    return [
        {
            "name": each["name"],
            "summary": each.get("summary", ""),
            "kind": f"{each['family']} method"
            if each["kind"] == "method" and each.get("family")
            else each.get("family") or each["kind"],
            "settings": _own(each.get("settings")) or "none",
            "searched": words.searched(each.get("searched")) or "nothing",
        }
        for each in standings["contestants"]
    ]


def trial_words(standings: Plain, left: int) -> str:
    """How many trials there were, how many failed, and whether some are left out here."""
    found = standings["trials"]
    lost = Counter(trial["status"] for trial in found if trial["status"] != "done")
    told = " and ".join(f"{count:,} {status}" for status, count in sorted(lost.items())) or "none failed"
    count = f"{len(found):,} trial{'' if len(found) == 1 else 's'}, {told}."
    return count + (f" {left:,} of those that were done are left out here; standings.json has all." if left else "")


def environment(standings: Plain) -> list[tuple[str, str]]:
    """Versions and the machine, by name."""
    found = standings["environment"].items()
    return [(name.replace("_", " "), words.plain(value)) for name, value in found if value is not None]


def judged(metric: Plain, kept: Kept) -> str:
    """When an item counts as right, in a sentence."""
    if any(not each.graded for each in kept.judges.values()):
        return "Right means right in more than half of the seeds."
    if any(each.cut is not None for each in kept.judges.values()):
        return f"Scores are graded: the better half of a board lies beyond the median {metric['title']} of its items."
    return f"No item has a {metric['title']} of its own, so there is no right and wrong here."


def _listed(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(_listed(each) for each in value)
    return f"{value:,}" if isinstance(value, int) else words.plain(value)


def _own(settings: Mapping[str, Any] | None) -> str:
    """The settings of a way; of a sum those of its parts. What is not set is left out."""
    if settings and "sum" in settings:
        return " + ".join(f"{part.get('method', '')} ({_own(part)})" for part in settings["sum"])
    return words.settings({key: each for key, each in (settings or {}).items() if key not in ("method", "entrant")})
