"""Verbalized classification: a word's score is the sum of its tokens' log-probabilities in forwards of its own."""

import copy
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import graft
from graft import data
from graft.attach import attach
from graft.data import prepare_padding
from graft.data.tasks.verbalized import CONTENT_FREE, Verbalized, begins, shared_paths
from graft.errors import BadInput, Refused

ROWS = [
    {"text": "the cat sat on the mat", "label": "good"},
    {"text": "a dog", "label": "not good"},
    {"text": "how many apples does Anna have?", "label": "English"},
    {"text": "it is red", "label": "good"},
]
FAMILIES = {"byte_level": "gpt2", "metaspace": "llama"}


def made(tokenizer: Any, model: Any, family: str = "byte_level", **options: Any) -> tuple[Verbalized, Any, Any]:
    words = tokenizer(family)
    network = model("AutoModelForCausalLM", FAMILIES[family], words)
    prepare_padding(words, network)
    return Verbalized.fit(ROWS, words, network.config, **options), network, words


def alone(network: Any, prompt: Sequence[int], word: Sequence[int]) -> float:
    """One forward, one word, no batch, no padding."""
    with torch.no_grad():
        chances = network(torch.tensor([[*prompt, *word]])).logits[0].double().log_softmax(-1)
    return sum(chances[len(prompt) - 1 + at, token].item() for at, token in enumerate(word))


def asked(words: Any, text: str) -> list[int]:
    return words(f"Text: {text}\nLabel:")["input_ids"]


def predicted(task: Verbalized, network: Any, words: Any, rows: Sequence[Any] = ROWS) -> list[dict[str, Any]]:
    return task.predict(network, task.collate(task.features(rows, words), words), words)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("per_token", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_single_forwards(
    tokenizer: Any, model: Any, family: str, per_token: bool, side: str
) -> None:
    task, network, words = made(tokenizer, model, family, per_token=per_token)
    words.padding_side = side
    assert task.labels == ("English", "good", "not good")
    follow = [words(f"x {label}", add_special_tokens=False)["input_ids"] for label in task.labels]
    first = words("x", add_special_tokens=False)["input_ids"]
    assert task.word_ids(words) == [ids[len(first) :] for ids in follow]
    for record, row in zip(predicted(task, network, words), ROWS, strict=True):
        prompt = asked(words, row["text"])
        sums = [alone(network, prompt, word) / (len(word) if per_token else 1) for word in task.word_ids(words)]
        chances = torch.tensor(sums).softmax(-1)
        assert record["probabilities"] == pytest.approx(chances.tolist(), abs=1e-5)
        assert record["output"] == task.labels[int(chances.argmax())]
        assert record["loss"] == pytest.approx(-chances[task.labels.index(row["label"])].log().item(), abs=1e-4)


def test_calibration_divides_by_what_the_model_says_of_nothing(tokenizer: Any, model: Any) -> None:
    task, network, words = made(tokenizer, model, calibrate=True)
    each = task.word_ids(words)

    def chances(text: str) -> torch.Tensor:
        return torch.tensor([alone(network, asked(words, text), word) for word in each]).softmax(-1)

    prior = torch.stack([chances(text) for text in CONTENT_FREE]).mean(0)
    for record, row in zip(predicted(task, network, words), ROWS, strict=True):
        expected = chances(row["text"]) / prior
        assert record["probabilities"] == pytest.approx((expected / expected.sum()).tolist(), abs=1e-5)
    nothing = predicted(task, network, words, [{"text": text} for text in CONTENT_FREE])
    assert not any("loss" in record for record in nothing)
    plain = predicted(dataclasses.replace(task, calibrate=False), network, words)
    assert plain != predicted(task, network, words)


def test_calibration_holds_where_a_word_is_all_but_impossible(
    tokenizer: Any, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, network, words = made(tokenizer, model, calibrate=True)
    # So improbable that its probability is 0 as a float, which calibration would divide by.
    unlikely = torch.tensor([0.0, -300.0, -1.0])
    monkeypatch.setattr(Verbalized, "scores", lambda self, model, prompts, *_: unlikely.expand(len(prompts), -1))
    for record in predicted(task, network, words):
        assert record["probabilities"] == pytest.approx([1 / 3] * 3)


def test_only_the_word_is_trained_after_the_same_prompt(tokenizer: Any, model: Any) -> None:
    task, network, words = made(tokenizer, model)
    for feature, row in zip(task.features(ROWS, words, train=True), ROWS, strict=True):
        word = task.word_ids(words)[task.labels.index(row["label"])]
        prompt = asked(words, row["text"])
        assert feature["input_ids"] == prompt + word and feature["labels"] == [-100] * len(prompt) + word
    batch = task.collate(task.features(ROWS[:2], words), words)
    with torch.no_grad():
        loss = network(**task.inputs(batch)).loss.item()
    right = [task.word_ids(words)[task.labels.index(row["label"])] for row in ROWS[:2]]
    total = sum(alone(network, asked(words, row["text"]), word) for row, word in zip(ROWS, right, strict=False))
    assert loss == pytest.approx(-total / sum(map(len, right)), abs=1e-4)


def test_pairs_words_and_templates(tokenizer: Any, model: Any) -> None:
    words = tokenizer("byte_level")
    config = model("AutoModelForCausalLM", "gpt2", words).config
    pairs = [{**row, "text_pair": "a bird"} for row in ROWS]
    task = Verbalized.fit(pairs, words, config, words={"good": "great"})
    assert task.words == ("English", "great", "not good")
    assert task.prompt(pairs[1]) == "Text 1: a dog\nText 2: a bird\nLabel:"
    assert task.shown(pairs[0]) == "Text 1: the cat sat on the mat\nText 2: a bird\nLabel: great"
    task = Verbalized.fit(ROWS, words, config, template="{{ text }} It is")
    assert dataclasses.replace(task, preamble="Say.\n\n").prompt(ROWS[1]) == "Say.\n\na dog It is"
    assert (task.input(ROWS[1]), task.reference(ROWS[1]), task.unseen({"label": "bad"})) == (
        "a dog", "not good", ["bad"],
    )  # fmt: skip


def test_a_long_text_loses_its_beginning_and_the_prompt_does_not_depend_on_the_word(tokenizer: Any, model: Any) -> None:
    task, _, words = made(tokenizer, model, max_length=24)
    rows = [{"text": "the cat sat on the mat and saw a bird " * 5, "label": label} for label in task.labels]
    features = task.features(rows, words)
    prompts = [[i for i, label in zip(f["input_ids"], f["labels"], strict=True) if label == -100] for f in features]
    assert prompts[0] == prompts[1] == prompts[2] and max(len(f["input_ids"]) for f in features) == 24
    assert words.decode(prompts[0]).endswith("bird \nLabel:")


def test_words_that_begin_another_end(tokenizer: Any, model: Any) -> None:
    words = tokenizer("byte_level")
    network = model("AutoModelForCausalLM", "gpt2", words)
    prepare_padding(words, network)
    rows = [{"text": "a", "label": "not"}, {"text": "b", "label": "not good"}]
    task = Verbalized.fit(rows, words, network.config)
    assert all(ids[-1] == words.eos_token_id for ids in task.word_ids(words))
    scores = [alone(network, asked(words, "a"), word) for word in task.word_ids(words)]
    found = predicted(task, network, words, rows)[0]["probabilities"]
    assert found == pytest.approx(torch.tensor(scores).softmax(-1).tolist(), abs=1e-5)


def test_what_cannot_be_told_apart_or_written_is_refused(tokenizer: Any, model: Any) -> None:
    words = tokenizer("byte_level")
    network = model("AutoModelForCausalLM", "gpt2", words)
    same = [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}]
    with pytest.raises(BadInput, match="the words 'y' and 'y' are the same tokens"):
        Verbalized.fit(same, words, network.config, words={"x": "y"})
    with pytest.raises(BadInput, match="no label is called z; the labels are x, y"):
        Verbalized.fit(same, words, network.config, words={"z": "y"})
    with pytest.raises(BadInput, match="at least two classes"):
        Verbalized.fit(same[:1], words, network.config)
    with pytest.raises(BadInput, match="more --length"):
        Verbalized.fit([*same, {"text": "c", "label": "a good day to you " * 3}], words, network.config, max_length=16)
    task = Verbalized.fit(same, words, network.config)
    t5 = tokenizer("unigram")
    with pytest.raises(Refused, match="verbalized is for causal models"):
        task.auto(model("AutoModelForSeq2SeqLM", "t5", t5).config)
    assert task.auto(network.config) == "AutoModelForCausalLM" and task.model_options() == {}


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=4), min_size=2, max_size=6, unique_by=tuple))
def test_paths_hold_every_word_and_none_holds_another(words: list[list[int]]) -> None:
    paths, place = shared_paths(words)
    assert all(begins(word[:-1], paths[at]) for word, at in zip(words, place, strict=True))
    assert not any(begins(one, other) for one in paths for other in paths if one is not other)
    assert {tuple(path) for path in paths} <= {tuple(word[:-1]) for word in words}


def test_words_of_one_token_cost_one_sequence_for_each_row(tokenizer: Any, model: Any) -> None:
    assert shared_paths([[1], [2], [3]]) == ([[]], [0, 0, 0])
    assert shared_paths([[1, 2], [1, 3], [4]]) == ([[1]], [0, 0, 0])


@pytest.mark.parametrize("method", ["lora", "prompt_tuning"])
def test_a_text_set_is_tuned_and_evaluated_as_words(tmp_path: Path, method: str) -> None:
    import small

    base, rows = small.base(tmp_path, "llama"), small.classes(tmp_path, (48, 12, 12))
    result = graft.tune(
        model=str(base), data=str(rows), task="verbalized", method=method, folder=tmp_path / "run", steps=4, batch=8,
        lr=1e-2, device="cpu",
    )  # fmt: skip
    assert result.summary["task"] == "verbalized, 48 train, 12 validation, 12 test rows"
    assert not any("untrained" in note for note in result.notes)
    kept = json.loads((tmp_path / "run" / "adapter" / "graft.json").read_text())
    assert kept["extra"]["task"]["words"] == ["animal", "plant"]
    again = graft.evaluate(model=str(base), data=str(rows), adapter=str(tmp_path / "run" / "adapter"), device="cpu")
    before = result.tuned.outcome.as_json()["metrics"]["accuracy"]
    assert again.found.outcome.as_json()["metrics"]["accuracy"] == before


def test_virtual_tokens_leave_the_positions_of_words_alone(tokenizer: Any, model: Any) -> None:
    task, network, words = made(tokenizer, model)
    attach(network, graft.PromptTuning(tokens=3), tokenizer=words)
    task = dataclasses.replace(task, max_length=48)
    together = predicted(task, network, words)
    for row, record in zip(ROWS, together, strict=True):
        single = predicted(task, network, words, [row])[0]
        assert single["probabilities"] == pytest.approx(record["probabilities"], abs=1e-5)
        # With the virtual tokens in it, one word after one prompt is still what it is alone.
        sums = [alone(network, asked(words, row["text"]), word) for word in task.word_ids(words)]
        assert record["probabilities"] == pytest.approx(torch.tensor(sums).softmax(-1).tolist(), abs=1e-5)


def test_the_columns_do_not_choose_it_but_may_be_asked_for(tmp_path: Path) -> None:
    lines = [json.dumps({"sentence1": f"a {n}", "sentence2": f"b {n}", "label": n % 2}) for n in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    assert data.load(str(tmp_path / "rows.jsonl")).task == "classification"
    found = data.load(str(tmp_path / "rows.jsonl"), task="verbalized", template="{{ text }} and {{ text_pair }}:")
    assert found.task == "verbalized" and {row["label"] for row in found.train} == {"0", "1"}
    import small

    words = copy.deepcopy(small.tokenizer())
    from transformers import LlamaConfig

    with pytest.raises(BadInput, match="the same tokens"):  # whole words, among which 0 and 1 are not
        data.fit(found, words, LlamaConfig())
