"""Chat: what is trained is what the assistant says, in the tokenizer's own template, several of them real ones."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graft.data import prepare_padding
from graft.data.answering import prompts_of
from graft.data.tasks.chat import Chat
from graft.data.turns import FALLBACK
from graft.errors import BadInput, Refused

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message.role == 'user' %}{{ bos_token }}[INST] {{ message.content | trim }} "
    "[/INST]{% else %} {{ message.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
# Like Qwen3's: the last answer is opened with an empty block that earlier answers do not have.
THINKING = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{% if message.role == 'assistant' and loop.last %}<think>\n\n</think>\n\n{% endif %}"
    "{{ message.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
BARE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
STRICT = "{{ raise_exception('roles must alternate') }}"
END = {CHATML: "<|im_end|>", LLAMA2: " </s>", THINKING: "<|im_end|>", FALLBACK: "</s>", BARE: "</s>"}
TALK = [
    {"role": "user", "content": "hi"}, {"role": "assistant", "content": "good day"},
    {"role": "user", "content": "is it good day or bad?"}, {"role": "assistant", "content": "good day to you"},
]  # fmt: skip
SAID = ("good", "day", "hi", "yes", "no", "apples", "12", "!", "🙂", "é", "think")
WORDS = st.lists(st.sampled_from(SAID), min_size=1, max_size=6).map(" ".join)


def pieces(feature: dict[str, Any], tokenizer: Any) -> list[str]:
    """The trained runs, decoded."""
    runs: list[list[int]] = [[]]
    for label in feature["labels"]:
        if label != -100:
            runs[-1].append(label)
        elif runs[-1]:
            runs.append([])
    return [tokenizer.decode(run) for run in runs if run]


def talking(tokenizer: Any, template: str | None) -> Any:
    tokenizer.chat_template = template
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    return tokenizer


@pytest.mark.parametrize("template", [CHATML, LLAMA2, THINKING, FALLBACK, BARE])
@pytest.mark.parametrize("family", ["byte_level", "metaspace"])
@given(said=st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
def test_what_is_trained_is_what_the_assistant_says(
    tokenizer: Any, template: str, family: str, said: list[tuple[str, str]]
) -> None:
    words = talking(tokenizer(family), template)
    end = END[template] if family == "metaspace" else END[template].replace("</s>", "<|end|>")
    messages = [
        message
        for asked, answer in said
        for message in ({"role": "user", "content": asked}, {"role": "assistant", "content": answer})
    ]
    feature = Chat(max_length=2000, template=template, max_new_tokens=8).encode({"messages": messages}, words)
    found = [piece.replace("<think>\n\n</think>\n\n", "").strip() for piece in pieces(feature, words)]
    # A template that writes nothing after an answer gets the end token after the last one only.
    ends = [end.strip()] * len(said) if template != BARE else [""] * (len(said) - 1) + [end]
    space = " " if template == LLAMA2 else ""
    expected = [f"{answer}{space}{mark}" for (_, answer), mark in zip(said, ends, strict=True)]
    assert found == expected


def test_the_prompt_is_what_generation_starts_from(tokenizer: Any) -> None:
    words = talking(tokenizer("metaspace"), CHATML)
    task = Chat(max_length=500, template=CHATML, max_new_tokens=8)
    batch = task.collate(task.features([{"messages": TALK}], words), words)
    text = words.apply_chat_template(TALK[:-1], tokenize=False, add_generation_prompt=True)
    assert prompts_of(batch)[0] == words(text, add_special_tokens=False)["input_ids"]
    # A question without an answer ends there too, and trains nothing.
    asked = task.encode({"messages": TALK[:-1]}, words)
    assert asked["input_ids"] == prompts_of(batch)[0] and task.masked(asked)


def test_fit_takes_the_tokenizers_template_or_a_stored_one(tokenizer: Any, model: Any) -> None:
    words = tokenizer("metaspace")
    config = model("AutoModelForCausalLM", "llama", words).config
    rows = [{"messages": TALK}]
    assert Chat.fit(rows, words, config).template == FALLBACK
    assert Chat.fit(rows, talking(words, CHATML), config).template == CHATML
    assert Chat.fit(rows, words, config).max_new_tokens >= len(words("good day to you")["input_ids"])
    joint = model("AutoModelForSeq2SeqLM", "t5", tokenizer("unigram"))
    with pytest.raises(Refused, match="--task generation"):
        Chat.fit(rows, words, config).auto(joint.config)


def test_long_conversations_lose_their_beginning_and_long_answers_their_end(tokenizer: Any) -> None:
    words = talking(tokenizer("metaspace"), CHATML)
    task = Chat(max_length=40, template=CHATML, max_new_tokens=10)
    whole = Chat(max_length=2000, template=CHATML, max_new_tokens=10)
    long = {"messages": [{"role": "user", "content": "good day " * 30}, *TALK[1:]]}
    feature, full = task.encode(long, words), whole.encode(long, words)
    assert not feature["cut"] and len(feature["input_ids"]) <= 40
    assert pieces(feature, words)[-1] == pieces(full, words)[-1]
    asked = {"messages": [TALK[0], {"role": "assistant", "content": "apples " * 60}]}
    cut = task.encode(asked, words)
    assert cut["cut"] and len(cut["input_ids"]) == 40
    assert whole.encode(asked, words)["cut"] is False


def test_answers_stop_at_the_end_of_the_turn(tokenizer: Any, model: Any) -> None:
    words = talking(tokenizer("byte_level"), CHATML)
    network = model("AutoModelForCausalLM", "gpt2", words)
    prepare_padding(words, network)
    task = Chat(max_length=60, template=CHATML, max_new_tokens=5)
    row = {"messages": TALK[:2]}
    plain = task.predict(network, task.collate(task.features([row], words), words), words)[0]
    assert plain["tokens"] == len(words("good day<|im_end|>")["input_ids"])
    # A model that only ever says the end of the turn says nothing.
    network.lm_head.weight.data.zero_()
    network.lm_head.bias = None
    import torch

    class Ender(torch.nn.Module):
        def forward(self, hidden: torch.Tensor) -> torch.Tensor:
            logits = torch.zeros(*hidden.shape[:-1], len(words))
            logits[..., words.convert_tokens_to_ids("<|im_end|>")] = 9.0
            return logits

    network.lm_head = Ender()
    assert task.predict(network, task.collate(task.features([row], words), words), words)[0]["output"] == ""


def test_a_template_that_refuses_is_told(tokenizer: Any) -> None:
    words = tokenizer("metaspace")
    with pytest.raises(BadInput, match="turns user, assistant, user, assistant: roles must alternate"):
        Chat(max_length=50, template=STRICT, max_new_tokens=5).encode({"messages": TALK}, words)
    row = {"messages": TALK}
    task = Chat(max_length=50, template=CHATML, max_new_tokens=5)
    assert (task.reference(row), task.input(row)) == (["good day to you"], "is it good day or bad?")
