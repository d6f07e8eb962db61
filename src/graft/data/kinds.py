"""The kinds of rows: which columns make a row of which kind, under which names, and for which task.

A kind is data. Its first alternative has graft's own column names; the others are names in common use.
"""

from dataclasses import dataclass
from itertools import product

Alternative = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """`name` as users write it; `tasks` it can serve, the usual one first; `alternatives` of (role, column) pairs."""

    name: str
    tasks: tuple[str, ...]
    alternatives: tuple[Alternative, ...]
    last_resort: bool = False


def _pairs(roles: str, *names: str) -> tuple[Alternative, ...]:
    """Alternatives from texts: `_pairs("prompt completion", "input output")`; the roles themselves come first."""
    split = roles.split()
    return tuple(tuple(zip(split, columns.split(), strict=True)) for columns in (roles, *names))


def _each(fixed: tuple[Alternative, ...], role: str, names: str) -> tuple[Alternative, ...]:
    return tuple((*left, (role, name)) for left, name in product(fixed, names.split()))


TEXT = _pairs(
    "text", "sentence", "content", "document", "review", "comment", "tweet", "headline", "title", "utterance", "body"
)
PAIR = _pairs(
    "text text_pair", "sentence1 sentence2", "premise hypothesis", "question1 question2", "text1 text2",
    "text_a text_b", "question sentence", "sentence_A sentence_B", "query passage", "query document",
    "claim evidence", "sentence_1 sentence_2",
)  # fmt: skip
LABEL = "label labels class category target sentiment polarity score rating intent emotion topic similarity"
COMPLETION = _pairs(
    "prompt completion", "prompt response", "input output", "source target", "question answer", "dialogue summary",
    "document summary", "article highlights", "article summary", "code description", "code docstring", "mr ref",
    "question sql", "instruction response", "query response", "inputs targets", "input target", "src tgt",
)  # fmt: skip
REFERENCES = _pairs("prompt references", "dialogue summaries", "mr refs", "document summaries", "article summaries")
CHOICE_COLUMNS = (
    "choice1 choice2", "choice0 choice1", "choice1 choice2 choice3 choice4", "choice0 choice1 choice2 choice3",
    "ending0 ending1", "ending0 ending1 ending2 ending3", "option1 option2", "answer1 answer2", "sol1 sol2",
    "A B C D", "option_a option_b option_c option_d",
)  # fmt: skip


def _choices() -> tuple[Alternative, ...]:
    """Question, choices (a column, or several columns joined by `+`) and answer, with COPA's `premise` where it is."""
    questions = ("question", "ctx", "context", "goal", "sentence", "sent1", "stem", "premise+question")
    lists = ("choices", "options", "endings", *("+".join(names.split()) for names in CHOICE_COLUMNS))
    answers = ("answer", "label", "answerKey", "answer_key")
    return tuple(
        (("question", question), ("choices", choices), ("answer", answer))
        for question, choices, answer in product(questions, lists, answers)
    )


KINDS = (
    Kind("prompt,chosen,rejected", ("preference",), _pairs("prompt chosen rejected")),
    Kind("messages", ("chat",), _pairs("messages")),
    Kind("conversations", ("chat",), _pairs("conversations")),
    Kind("instruction,input,output", ("chat", "generation"), _pairs("instruction input output")),
    Kind("instruction,output", ("chat", "generation"), _pairs("instruction output")),
    Kind(
        "tokens,tags",
        ("tagging",),
        _each(_pairs("tokens", "words"), "tags", "tags ner_tags pos_tags chunk_tags labels ner upos"),
    ),
    Kind("question,context,answers", ("question_answering",), _pairs("question context answers")),
    Kind("question,choices,answer", ("multiple_choice",), _choices()),
    Kind("text,text_pair,label", ("classification", "regression", "verbalized"), _each(PAIR, "label", LABEL)),
    Kind("text,label", ("classification", "regression", "verbalized"), _each(TEXT, "label", LABEL)),
    Kind("prompt,completion", ("generation",), (*COMPLETION, *REFERENCES)),
    Kind("text", ("language_modeling",), TEXT, last_resort=True),
)
