"""The entrants as a whole: found by file, with help, a search space of their own settings, and plain refusals."""

from dataclasses import dataclass, fields
from typing import Any

import pytest

from graft import catalogue
from graft.errors import BadInput
from graft.options.fields import fields_of
from graft.tournament import entrants
from graft.tournament.entrant import Entrant

NAMES = ["chain_of_thought", "few_shot", "lstm", "majority", "ngram", "tfidf", "word_vectors", "zero_shot"]
CLASSES = [{"text": "a b", "label": "x"}, {"text": "b c", "label": "y"}, {"text": "a c", "label": "x"}]
ROWS: dict[str, Any] = {
    "classification": CLASSES,
    "verbalized": CLASSES,
    "regression": [{"text": f"a {n}", "label": float(n)} for n in range(4)],
    "tagging": [{"tokens": ["a", "b"], "tags": ["O", "X"]}] * 3,
    "multiple_choice": [{"question": "a?", "choices": ["b", "c"], "answer": 1}] * 2,
    "question_answering": [{"question": "a", "context": "b", "answers": [{"text": "b", "answer_start": 0}]}] * 2,
    "generation": [{"prompt": "a", "completion": "b"}, {"prompt": "c", "completion": "b"}],
    "language_modeling": [{"text": "a b c"}, {"text": "a b"}],
    "chat": [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 2,
}
# Where each can enter, were the base's head trained.
ENTERS = {
    "majority": {"classification", "verbalized", "regression", "tagging", "multiple_choice", "generation"},
    "tfidf": {"classification", "verbalized", "regression"},
    "word_vectors": {"classification", "verbalized", "regression"},
    "lstm": {"classification", "verbalized", "regression", "tagging"},
    "ngram": {"classification", "verbalized", "language_modeling"},
    "zero_shot": set(ROWS),
    "few_shot": {"verbalized", "generation"},
    "chain_of_thought": set(),
}


def test_they_are_found_by_their_files() -> None:
    assert entrants.names() == NAMES and list(entrants.entrants()) == NAMES
    assert entrants.find(" TFIDF ").__name__ == "TfIdf" and entrants.find("tfidf")().name == "tfidf"
    with pytest.raises(BadInput, match="there is no entrant 'tfid'; the nearest is 'tfidf'"):
        entrants.find("tfid")
    assert not set(NAMES) & set(catalogue.methods())  # one table names both


@pytest.mark.parametrize("name", NAMES)
def test_settings_have_help_and_the_search_begins_with_the_default(name: str) -> None:
    kind = entrants.find(name)
    assert kind.__name__.lower() == name.replace("_", "") and (kind.__doc__ or "").strip()
    assert all(field.help.strip() for field in fields_of(kind))
    default = kind()
    assert {setting: values[0] for setting, values in kind.search.items()} == {
        setting: getattr(default, setting) for setting in kind.search
    }
    for setting, values in kind.search.items():
        assert len({kind(**{setting: value}) for value in values}) == len(values)
    assert kind.seeded is (name in ("chain_of_thought", "few_shot", "lstm"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ROWS)
def test_each_enters_where_it_can_and_says_why_not_elsewhere(arena: Any, name: str, kind: str) -> None:
    place = arena(kind, ROWS[kind])
    entrant = entrants.find(name)()
    why = entrant.refuses(place)
    assert (why is None) == (kind in ENTERS[name])
    if why is not None:
        assert name in why and why.endswith(".") and "\n" not in why
    elif name != "zero_shot":
        records = entrant.fit(place, place.train, 0).answer(place.test)
        assert [record["item"] for record in records] == list(range(len(place.test)))


@pytest.mark.parametrize("name", ["zero_shot", "few_shot", "chain_of_thought"])
def test_an_untrained_head_is_not_asked(arena: Any, name: str) -> None:
    kind = "verbalized" if name == "few_shot" else "generation"
    why = entrants.find(name)().refuses(arena(kind, ROWS[kind], fresh=("score.weight",)))
    assert why is not None and "untrained" in why
    if name == "zero_shot":
        assert "majority stands in" in why and "score" in why


@pytest.mark.parametrize(
    ("name", "settings", "said"),
    [
        ("tfidf", {"C": 0}, "C must be above 0"), ("tfidf", {"C": "much"}, "C must be a number"),
        ("tfidf", {"analyzer": "words"}, "Did you mean 'word'"), ("tfidf", {"ngrams": 0}, "ngrams must be at least 1"),
        ("ngram", {"order": 0}, "order must be at least 1"), ("few_shot", {"k": 0}, "k must be at least 1"),
        ("few_shot", {"k": 2.5}, "k must be a whole number"), ("few_shot", {"orders": 0}, "orders must be at least 1"),
        ("chain_of_thought", {"k": -1}, "k must be at least 0"), ("lstm", {"dropout": 1.0}, "dropout must be"),
        ("lstm", {"lr": 0.0}, "lr must be above 0"), ("lstm", {"hidden": 0}, "hidden must be at least 1"),
        ("chain_of_thought", {"marker": " "}, "marker must not be empty"), ("word_vectors", {"C": -1.0}, "above 0"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        entrants.find(name)(**settings)


def test_anything_that_answers_rows_can_be_an_entrant() -> None:
    @dataclass(frozen=True)
    class Nearest(Entrant):
        """As retrieval will be: it keeps an index."""

        def refuses(self, arena: Any) -> str | None:
            return None

        def fit(self, arena: Any, rows: Any, seed: int) -> Any:
            return None

    assert Nearest().refuses(None) is None and not fields(Nearest)
