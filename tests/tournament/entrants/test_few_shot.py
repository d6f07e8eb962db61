"""Few-shot prompts as the model reads them, letter by letter; averages over orders; examples that do not fit."""

import itertools
from dataclasses import replace
from typing import Any

import pytest

from graft.scoring import score
from graft.tournament.entrants._examples import drawn, orders, separator
from graft.tournament.entrants.few_shot import FewShot

CLASSES = [{"text": f"t{n}", "label": label} for n, label in enumerate("xxxxyxxz")]
TEXTS = [{"prompt": f"{n} and 1", "completion": f"it is {n + 1}"} for n in range(6)]


def examples_in(text: str) -> list[str]:
    return text.split("\n\n")[:-1]


def test_labels_are_scored_after_examples(arena: Any, seen: list[str]) -> None:
    place = arena("verbalized", CLASSES, [{"text": "new", "label": "x"}])
    answerer = FewShot(k=3, orders=1).fit(place, place.train, 0)
    (record,) = answerer.answer(place.test)
    # Words of a space and a letter share the sequence that ends in the space.
    (text,) = seen
    assert text.endswith("\n\nText: new\nLabel: ")
    shown = examples_in(text)
    assert len(shown) == 3 and all(
        each in {f"Text: {r['text']}\nLabel: {r['label']}" for r in CLASSES} for each in shown
    )
    assert {each[-1] for each in shown} == {"x", "y", "z"}  # balanced
    assert (answerer.trainable, answerer.stored) == (0, len(text) - len("Text: new\nLabel: "))
    task = replace(place.task, preamble=text.removesuffix("Text: new\nLabel: "))
    expected = score(place.model, place.tokenizer, task, place.test)[0]
    assert record["probabilities"] == pytest.approx(expected["probabilities"])
    assert (record["output"], record["loss"]) == (expected["output"], pytest.approx(expected["loss"]))


def test_orders_of_the_same_examples_are_averaged(arena: Any, seen: list[str]) -> None:
    place = arena("verbalized", CLASSES, [{"text": "new", "label": "x"}])
    (record,) = FewShot(k=4, orders=3).fit(place, place.train, 1).answer(place.test)
    texts = list(seen)
    assert len(texts) == 3 and len({tuple(sorted(examples_in(text))) for text in texts}) == 1 < len(set(texts))
    each = []
    for text in texts:
        task = replace(place.task, preamble=text.removesuffix("Text: new\nLabel: "))
        each.append(score(place.model, place.tokenizer, task, place.test)[0]["probabilities"])
    mean = [sum(column) / 3 for column in zip(*each, strict=True)]
    assert record["probabilities"] == pytest.approx(mean) and sum(mean) == pytest.approx(1)


def test_calibration_is_under_the_same_examples(arena: Any, seen: list[str]) -> None:
    place = arena("verbalized", CLASSES, [{"text": "new", "label": "x"}])
    FewShot(k=2, orders=1, calibrate=True).fit(place, place.train, 0).answer(place.test)
    (before,) = {text.rpartition("Text: ")[0] for text in seen}
    assert len(examples_in(before)) == 2
    assert {text.removeprefix(before) for text in seen} == {f"Text: {t}\nLabel: " for t in ("new", "N/A", "", "[MASK]")}


def test_written_answers_end_where_the_next_example_would_begin(
    arena: Any, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = arena("generation", TEXTS, [{"prompt": "7 and 1", "completion": "it is 8"}], template="Add {{ prompt }}:")
    answerer = FewShot(k=2).fit(place, place.train, 0)
    base = {record["item"]: record for record in score(place.model, place.tokenizer, place.task, place.test)}
    seen.clear()
    (record,) = answerer.answer(place.test)
    asked = seen[-1]
    assert asked.endswith("\n\nAdd 7 and 1:\n") and len(examples_in(asked)) == 2
    assert set(examples_in(asked)) <= {f"Add {row['prompt']}:\n{row['completion']}" for row in TEXTS}
    assert seen[0] == asked + "it is 8<|end|>"  # the loss of the right answer, after the same prompt
    assert (record["tokens"], record["bytes"]) == (base[0]["tokens"], base[0]["bytes"]) and record["loss"] > 0
    assert set(record) == {"item", "output", "loss", "tokens", "bytes"}
    monkeypatch.setattr("graft.data.answering._text", lambda *_: "it is 8\n\nAdd 8 and 1:\nit is 9")
    assert answerer.answer(place.test)[0]["output"] == "it is 8"


def test_the_seed_chooses_examples_and_order(arena: Any, seen: list[str]) -> None:
    place = arena("generation", TEXTS, TEXTS[:1])
    for seed in (0, 0, 1, 2):
        FewShot(k=3).fit(place, place.train, seed).answer(place.test)
    prompts = [text for text in seen if text.endswith("\n0 and 1\n")]
    assert prompts[0] == prompts[1] and len(set(prompts)) == 3


@pytest.mark.parametrize("kind", ["verbalized", "generation"])
def test_examples_that_do_not_fit_are_left_out_from_the_left(arena: Any, seen: list[str], kind: str) -> None:
    rows = [{"text": f"{n}" * 20, "label": "xy"[n % 2]} for n in range(6)]
    if kind == "generation":
        rows = [{"prompt": row["text"], "completion": row["label"]} for row in rows]
    long = [{**rows[0], ("text" if kind == "verbalized" else "prompt"): letter * size}
            for letter, size in (("a", 4), ("b", 40), ("c", 300))]  # fmt: skip
    place = arena(kind, rows, long, length=128)
    answerer = FewShot(k=4, orders=1).fit(place, place.train, 0)
    full, counts = None, []
    answerer.answer(place.test)
    for letter in "abc":
        text = next(text for text in seen if letter * 4 in text.rpartition("\n\n")[2])
        shown = examples_in(text)
        full = full or shown
        assert shown == full[len(full) - len(shown) :]
        counts.append(len(shown))
        if letter != "c":
            assert text.startswith(("Text: ", "0", "1", "2", "3", "4", "5"))  # nothing is cut but the last
    assert counts[0] > counts[1] > counts[2] == 0
    asked = f"of 4 examples {sum(counts) / 3:.1f} fit into a prompt on average; "
    assert answerer.notes[0].startswith(asked) and len(answerer.notes) == 1


def test_balanced_or_as_drawn() -> None:
    rows: Any = CLASSES
    for k, seed in itertools.product((1, 2, 3, 5, 20), range(5)):
        even = [row["label"] for row in drawn(rows, k, seed, lambda row: row["label"])]
        assert len(even) == min(k, 8)
        if k == 3:
            assert sorted(even) == ["x", "y", "z"]
        if k >= 3:
            assert even.count("y") == even.count("z") == 1  # all there are
        assert drawn(rows, k, seed) == drawn(rows, k, seed)
    several = [tuple(row["label"] for row in drawn(rows, 3, seed)) for seed in range(20)]
    assert any("y" not in labels and "z" not in labels for labels in several)
    same = orders(rows, 4, 0)
    assert same[0] == rows and all(sorted(map(id, order)) == sorted(map(id, rows)) for order in same)


def test_what_parts_examples_is_in_no_answer() -> None:
    assert separator(["a", "b\nc"]) == "\n\n"
    assert separator(["a\n\nb"]) == "\n\n\n"
    assert separator(["a\n\n\nb"]) == "\n\n###\n\n"
