"""Against the definition of an entity, tried on every span, and recorded values of seqeval 1.2.2."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graft import metrics
from graft.errors import BadInput
from graft.metrics.tagging import entities

TAGS = st.sampled_from(["O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("A", "B-x"))])


def brute(tags: list[str]) -> set[tuple[str, int, int]]:
    """Every span that is unbroken inside and broken at both ends."""
    kinds = [None if tag == "O" else tag[2:] for tag in tags]

    def joined(left: int) -> bool:
        """Tokens left and left + 1 belong to one entity."""
        inside = left >= 0 and left + 1 < len(tags) and kinds[left] is not None
        return inside and kinds[left] == kinds[left + 1] and tags[left][0] in "BI" and tags[left + 1][0] in "IE"

    return {
        (str(kinds[first]), first, last)
        for first in range(len(tags))
        for last in range(first, len(tags))
        if kinds[first] is not None
        and all(joined(i) for i in range(first, last))
        and not joined(first - 1)
        and not joined(last)
    }


@settings(max_examples=300, deadline=None)
@given(st.lists(TAGS, max_size=9))
def test_entities_are_the_maximal_spans(tags: list[str]) -> None:
    assert entities(tags) == brute(tags)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.tuples(TAGS, TAGS), min_size=1, max_size=6), min_size=1, max_size=5))
def test_f1_is_over_all_entities_of_the_corpus(sentences: list[list[tuple[str, str]]]) -> None:
    records = [{"output": [o for o, _ in s], "reference": [r for _, r in s]} for s in sentences]
    given = {(i, *span) for i, record in enumerate(records) for span in brute(record["output"])}
    wanted = {(i, *span) for i, record in enumerate(records) for span in brute(record["reference"])}
    score = metrics.get("entity_f1").score(records)
    if given or wanted:
        assert score.value == pytest.approx(200 * len(given & wanted) / (len(given) + len(wanted)))
    else:
        assert np.isnan(score.value) and score.reason == "no item has an entity in its output or its reference"


def test_values_of_seqeval() -> None:
    reference = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    output = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    rows = [{"output": o, "reference": r} for o, r in zip(output, reference, strict=True)]
    assert metrics.get("entity_f1").score(rows).value == pytest.approx(50)
    assert metrics.get("entity_f1").score(rows).items.tolist() == [0, 100]


def test_a_sentence_rightly_without_entities_is_right() -> None:
    rows = [{"output": ["O"], "reference": ["O"]}, {"output": ["B-A"], "reference": ["O"]}]
    assert metrics.get("entity_f1").score(rows).items.tolist() == [100, 0]


def test_another_scheme_or_length_is_refused() -> None:
    with pytest.raises(BadInput, match=r"item 0: output has tag 'U-PER' at token 1.*U- is S-"):
        metrics.get("entity_f1").score([{"output": ["O", "U-PER"], "reference": ["O", "O"]}])
    with pytest.raises(BadInput, match="item 7: 1 tags in output, 2 in reference"):
        metrics.get("entity_f1").score([{"item": 7, "output": ["O"], "reference": ["O", "O"]}])
