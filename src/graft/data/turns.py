"""Where the assistant speaks in a conversation that a chat template has written."""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2 import TemplateError

from graft.errors import BadInput

Messages = Sequence[Mapping[str, str]]

# For tokenizers without a chat template. It is stored with the task: the adapter knows what it was trained on.
FALLBACK = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ message['role'] | capitalize }}: {{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
_PROBE = "GRAFTPROBE"


def rendered(messages: Messages, tokenizer: Any, template: str, opened: bool = False) -> str:
    """The conversation as text; `opened` adds the beginning of the assistant's next turn.

    Raises BadInput when the template refuses the conversation (two turns of one role, a system message).
    """
    try:
        text = tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=False, add_generation_prompt=opened
        )
    except TemplateError as error:
        roles = ", ".join(message["role"] for message in messages)
        raise BadInput(f"the chat template does not take the turns {roles}: {error.message}") from error
    return str(text)


def end_marker(tokenizer: Any, template: str) -> str:
    """What the template writes after an answer, without white space at its end; empty when it writes nothing."""
    probe = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _PROBE}]
    return rendered(probe, tokenizer, template).rpartition(_PROBE)[2].rstrip()


def assistant_spans(messages: Messages, text: str, tokenizer: Any, template: str) -> list[tuple[int, int]]:
    """For each turn of the assistant (start, end) in `text`: from where the model goes on, to after its end mark.

    The place is found by rendering the conversation again with a probe for the turn, so that the same words elsewhere
    do not matter. A turn that the template leaves out, or on which the rest of the text depends, is not among them.
    """
    marker = end_marker(tokenizer, template)
    spans: list[tuple[int, int]] = []
    for number, message in enumerate(messages):
        if message["role"] != "assistant" or not message["content"].strip():
            continue
        probed = [*messages[:number], {**message, "content": _PROBE}, *messages[number + 1 :]]
        left, probe, right = rendered(probed, tokenizer, template).rpartition(_PROBE)
        before = rendered(messages[:number], tokenizer, template, opened=True) if number else None
        if before is None or not text.startswith(before):
            before = left
        end = len(text) - len(right)
        found = probe and text.startswith(before) and text.endswith(right)
        if not found or not text[len(before) : end].strip():
            continue
        spans.append((len(before), end + len(marker) if text.startswith(marker, end) else end))
    return spans
