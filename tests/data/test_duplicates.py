"""Near-duplicates against brute force over all pairs, with shingles written a second time."""

from itertools import combinations

from hypothesis import given, settings
from hypothesis import strategies as st

from graft.data.duplicates import clusters, near, normalize

WORDS = st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"]), min_size=1, max_size=14)


@st.composite
def families(draw: st.DrawFn) -> list[str]:
    """Texts of which several differ in a word or two."""
    texts = []
    for words in draw(st.lists(WORDS, min_size=1, max_size=6)):
        words = words * draw(st.integers(1, 3))
        texts.append(words)
        for _ in range(draw(st.integers(0, 3))):
            changed = list(texts[-1])
            changed[draw(st.integers(0, len(changed) - 1))] = draw(st.sampled_from(["a", "z"]))
            texts.append(changed)
    return [" ".join(words) for words in texts]


def alike(left: str, right: str) -> bool:
    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return set(zip(words, words[1:], words[2:], strict=False)) or {tuple(words)}

    a, b = grams(left), grams(right)
    return len(a & b) / len(a | b) >= 0.8


def brute(texts: list[str]) -> set[frozenset[int]]:
    groups = [{number} for number in range(len(texts))]
    for left, right in combinations(range(len(texts)), 2):
        if alike(texts[left], texts[right]):
            joined = next(g for g in groups if left in g) | next(g for g in groups if right in g)
            groups = [g for g in groups if not g & joined] + [joined]
    return {frozenset(group) for group in groups}


@settings(max_examples=60)
@given(families())
def test_clusters_are_those_of_brute_force(texts: list[str]) -> None:
    assert {frozenset(group) for group in clusters(texts)} == brute(texts)


@settings(max_examples=60)
@given(families(), families())
def test_near_rows_are_those_of_brute_force(texts: list[str], others: list[str]) -> None:
    expected = {
        number
        for number, text in enumerate(texts)
        if text not in others and any(alike(text, other) for other in others)
    }
    assert near(texts, others) == expected


def test_normalization_ignores_case_and_spaces_and_keeps_punctuation() -> None:
    assert normalize("Is  it ?") == normalize("is it?") == "is it ?"
    assert normalize("ﬁne") == normalize("FINE")
    assert normalize("x = [ ]") != normalize("x = { }")
    assert normalize("STRASSE") == normalize("straße")
