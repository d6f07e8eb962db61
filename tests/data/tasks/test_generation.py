"""Generation: the trained tokens are the answer and its end, whatever the tokenizer; long prompts give way."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from graft.data import prepare_padding
from graft.data.answering import answers, prompts_of
from graft.data.tasks.generation import Generation
from graft.errors import BadInput, Refused

TEXT = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=40).filter(str.strip)
ROW = {"prompt": "Answer yes or no: is it good?", "completion": "yes, it is"}


def task_of(tokenizer: Any, joint: bool = False, **options: Any) -> Generation:
    given = {"template": "{{ prompt }}", "separator": "" if joint else "\n", "max_new_tokens": 8, "max_length": 64}
    return Generation(**{**given, **options}, encoder_decoder=joint)


def trained(feature: dict[str, Any]) -> list[int]:
    return [label for label in feature["labels"] if label != -100]


@pytest.mark.parametrize("family", ["byte_level", "metaspace"])
@given(prompt=TEXT, answer=TEXT)
def test_trained_tokens_are_the_answer_and_its_end(shared: Any, family: str, prompt: str, answer: str) -> None:
    tokenizer = shared(family)
    task = task_of(tokenizer, max_length=500)
    feature = task.encode({"prompt": prompt, "completion": answer}, tokenizer)
    ids, labels = feature["input_ids"], feature["labels"]
    assert len(ids) == len(labels) == len(feature["attention_mask"])
    assert trained(feature)[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(trained(feature)[:-1], clean_up_tokenization_spaces=False) == answer
    # What comes before is the prompt as generation will tokenize it, all of it untrained.
    before = len(ids) - len(trained(feature))
    assert labels[:before] == [-100] * before and labels[before:] == ids[before:]
    assert ids[:before] == tokenizer(prompt + "\n")["input_ids"]
    assert feature["cut"] is False and feature["bytes"] == len(answer.encode())


@given(prompt=TEXT, answer=TEXT, max_length=st.integers(8, 40), room=st.integers(1, 20))
def test_the_prompt_gives_way_before_the_answer(
    shared: Any, prompt: str, answer: str, max_length: int, room: int
) -> None:
    tokenizer = shared("metaspace")
    task = task_of(tokenizer, max_length=max_length, max_new_tokens=min(room, max_length // 2))
    feature = task.encode({"prompt": prompt, "completion": answer}, tokenizer)
    whole = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    asked = tokenizer(prompt + "\n", add_special_tokens=False)["input_ids"]
    assert len(feature["input_ids"]) <= max_length
    assert feature["input_ids"][0] == tokenizer.bos_token_id
    if len(whole) < max_length:
        assert trained(feature) == whole and not feature["cut"]
    else:
        assert trained(feature) == whole[: max_length - 1] and feature["cut"]
    # The end of the prompt is what stays, and the room for a generated answer is kept free.
    left = feature["input_ids"][1 : len(feature["input_ids"]) - len(trained(feature))]
    assert left == asked[len(asked) - len(left) :]
    assert len(left) == min(len(asked), max(max_length - max(len(whole), task.max_new_tokens) - 1, 0))


def test_encoder_decoder_models_read_the_prompt_and_write_the_answer(tokenizer: Any) -> None:
    words = tokenizer("unigram")
    task = task_of(words, joint=True, max_length=24)
    feature = task.encode({"prompt": "how many apples", "completion": "red apples"}, words)
    assert words.decode(feature["input_ids"], skip_special_tokens=True) == "how many apples"
    assert trained(feature)[-1] == words.eos_token_id and trained(feature).count(words.eos_token_id) == 1
    assert words.decode(trained(feature)[:-1]) == "red apples"
    long = task.encode({"prompt": "cat " * 50, "completion": "dog " * 50}, words)
    assert len(long["input_ids"]) == len(long["labels"]) == 24 and long["cut"]


def test_fit_learns_room_for_the_answers(tokenizer: Any, model: Any) -> None:
    bpe = tokenizer("byte_level")
    config = model("AutoModelForCausalLM", "gpt2", bpe).config
    rows = [{"prompt": "p", "completion": "x" * size} for size in (1, 2, 20)]
    task = Generation.fit(rows, bpe, config)
    needed = max(len(bpe(row["completion"])["input_ids"]) + 1 for row in rows)
    assert needed <= task.max_new_tokens <= 32
    assert (task.max_length, task.separator, task.encoder_decoder) == (64, "\n", False)
    assert Generation.fit(rows, bpe, config, max_new_tokens=3).max_new_tokens == 3
    with pytest.raises(BadInput, match="line 1"):
        Generation.fit(rows, bpe, config, template="{{ prompt")
    with pytest.raises(BadInput, match="65 is more than the 64 positions"):
        Generation.fit(rows, bpe, config, max_length=65)
    bpe.eos_token = None
    with pytest.raises(BadInput, match="no end token"):
        Generation.fit(rows, bpe, config)


@pytest.mark.parametrize(("kind", "family"), [("gpt2", "byte_level"), ("llama", "metaspace")])
def test_predictions_do_not_depend_on_the_batch(kind: str, family: str, tokenizer: Any, model: Any) -> None:
    words = tokenizer(family)
    causal = model("AutoModelForCausalLM", kind, words)
    prepare_padding(words, causal)
    task = task_of(words, max_new_tokens=6)
    longer = {"prompt": "a much longer prompt than the other", "completion": "x"}
    rows = [ROW, {"prompt": "hi", "completion": "no"}, longer]
    features = task.features(rows, words)
    together = task.predict(causal, task.collate(features, words), words)
    for feature, record, row in zip(features, together, rows, strict=True):
        alone = task.predict(causal, task.collate([feature], words), words)[0]
        assert alone["output"] == record["output"]
        assert alone["loss"] == pytest.approx(record["loss"], abs=1e-4)
        assert (record["tokens"], record["item"]) == (len(trained(feature)), feature["item"])
        # By hand: the prompt as it is tokenized, one token at a time.
        ids = torch.tensor([words(row["prompt"] + "\n")["input_ids"]])
        start = ids.shape[1]
        for _ in range(6):
            best = causal(ids).logits[0, -1].argmax()
            if best == words.eos_token_id:
                break
            ids = torch.cat([ids, best.view(1, 1)], dim=1)
        assert record["output"] == words.decode(ids[0, start:], skip_special_tokens=True).strip()


def test_losses_are_those_of_the_model(tokenizer: Any, model: Any) -> None:
    words = tokenizer("byte_level")
    causal = model("AutoModelForCausalLM", "gpt2", words)
    prepare_padding(words, causal)
    t5_words = tokenizer("unigram")
    joint = model("AutoModelForSeq2SeqLM", "t5", t5_words)
    for task, network, own in ((task_of(words), causal, words), (task_of(t5_words, joint=True), joint, t5_words)):
        batch = task.collate(task.features([ROW, {"prompt": "p", "completion": "a dog"}], own), own)
        network.train()
        records = task.predict(network, batch, own)
        assert network.training
        network.eval()
        mean = network(**task.inputs(batch)).loss.item()
        total = sum(record["loss"] for record in records) / sum(record["tokens"] for record in records)
        assert total == pytest.approx(mean, rel=1e-4)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_encoder_decoder_models_generate(kind: str, tokenizer: Any, model: Any) -> None:
    words = tokenizer("unigram")
    joint = model("AutoModelForSeq2SeqLM", kind, words)
    task = task_of(words, joint=True)
    assert task.auto(joint.config) == "AutoModelForSeq2SeqLM"
    batch = task.collate(task.features([ROW, {"prompt": "p", "completion": "q"}], words), words)
    records = task.predict(joint, batch, words)
    ids = words(ROW["prompt"], return_tensors="pt")
    written = joint.generate(input_ids=ids["input_ids"], do_sample=False, max_new_tokens=8)
    assert records[0]["output"] == words.decode(written[0], skip_special_tokens=True).strip()


def test_generation_is_greedy_whatever_the_model_prefers(tokenizer: Any, model: Any) -> None:
    words = tokenizer("byte_level")
    causal = model("AutoModelForCausalLM", "gpt2", words)
    prepare_padding(words, causal)
    prompts = [words("the cat")["input_ids"], words("User: hi\n")["input_ids"]]
    plain = answers(causal, prompts, words, 6)
    causal.generation_config.update(do_sample=True, temperature=3.0, top_k=3, repetition_penalty=9.0, num_beams=3)
    assert answers(causal, prompts, words, 6) == plain
    first = causal(torch.tensor([prompts[0]])).logits[0, -1].argmax().item()
    causal.generation_config.eos_token_id = [first]
    assert answers(causal, prompts, words, 6)[0] == "" != plain[0]


def test_rows_without_an_answer_are_prompts(tokenizer: Any) -> None:
    words = tokenizer("metaspace")
    task = task_of(words)
    feature = task.encode({"prompt": "how many"}, words)
    assert task.masked(feature) and not feature["cut"]
    batch = task.collate([{**feature, "item": 0}, {**task.encode(ROW, words), "item": 1}], words)
    assert prompts_of(batch)[0] == words("how many\n")["input_ids"]
    assert prompts_of(batch)[1] == words(ROW["prompt"] + "\n")["input_ids"]


def test_templates_make_the_prompt(tokenizer: Any) -> None:
    words = tokenizer("metaspace")
    task = task_of(words, template="Translate: {{ source }}", separator=" =>")
    row = {"source": "hello", "completion": "good day", "references": ["good day", "hi"]}
    assert task.prompt(row) == "Translate: hello =>" == task.input(row)
    assert task.reference(row) == ["good day", "hi"]
    with pytest.raises(BadInput, match="'source' is undefined"):
        task.encode(ROW, words)


def test_models_without_the_head_are_refused(tokenizer: Any, model: Any) -> None:
    from transformers import ViTConfig

    with pytest.raises(Refused, match="no CausalLM head for ViTConfig"):
        task_of(tokenizer("metaspace")).auto(ViTConfig())
