"""Opening: what cannot be compared is refused before anything is trained, and a dry run says what would be run."""

from collections.abc import Callable
from typing import Any

import pytest

from graft.errors import BadInput


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seeds": (0, 0)}, "seeds: 0, 0 holds one twice"),
        ({"sizes": (8, 8)}, "sizes: 8, 8 holds one twice"),
        ({"seeds": (-1,)}, "seeds: -1 is no seed"),
        ({"seeds": (2**32,)}, "seeds: 4294967296 is no seed"),
        ({"transfer": True}, "--transfer scores adapters on the other data sets"),
        ({"ray": "local", "workers": 2}, "give one of them"),
        ({"sizes": (-5,)}, "sizes: -5 is no number of rows"),
        ({"contestants": ()}, "contestants: give at least one"),
        ({"metric": "acuracy"}, "accuracy"),
        ({"columns": ("text=a", "text=b")}, "columns: 2 for 1 data sets"),
        ({"match": "traniable=1%"}, "trainable"),
        ({"trials": 0}, "trials"),
    ],
)
def test_what_cannot_be_compared_is_refused(compared: Callable[..., Any], given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        compared(**given)


def test_a_dry_run_counts_trials_and_writes_nothing(compared: Callable[..., Any]) -> None:
    result = compared(contestants=("majority", "lora"), trials=4, sizes=(8, 0), dry_run=True)
    assert result.planned[-1] == f"{2 * (1 + 4 + 2 + 2)} trials in all" and not result.folder.exists()
    assert [line.partition(":")[0] for line in result.planned[:2]] == ["classes-8", "classes-all"]
