"""Texts as token ids, for fitting one model to another."""

from collections.abc import Mapping, Sequence
from typing import Any

from graft import data
from graft.data.task import length_limit
from graft.data.tasks import from_dict
from graft.data.templates import DEFAULT
from graft.errors import BadInput
from graft.loading import Source
from graft.scoring import general_text

SHORTEST = 2  # tokens of a text that a model can be run on and something be learned from


def encoded(
    given: str, sources: Sequence[Source], columns: str | None = None, task: Mapping[str, Any] | None = None
) -> list[list[list[int]]]:
    """The texts of `given`, a .txt file or what `graft tune` takes, in the tokens of each source.

    Of rows, those for training, as `task` (as an adapter keeps it) reads them, or as they are.
    """
    if given.endswith(".txt"):
        texts = [row["text"] for row in general_text(given).rows]
        return [[list(each.tokenizer(text, verbose=False)["input_ids"]) for text in texts] for each in sources]
    own = task["template"] if task and task.get("template", DEFAULT) != DEFAULT else None
    found = data.load(given, columns=columns, task=task["kind"] if task else None, template=own)
    kind = from_dict(task) if task else data.fit(found, sources[0].tokenizer, sources[0].config)
    rows = found.train or found.validation or found.test  # test rows stay unseen where there are others
    return [[feature["input_ids"] for feature in kind.features(rows, each.tokenizer, train=True)] for each in sources]


def pieces(texts: Sequence[Sequence[int]], sources: Sequence[Source], length: int, most: int) -> list[list[int]]:
    """At most so many texts, spread evenly, of at most so many tokens, and as many as the models take.

    Raises BadInput where fewer than two are left.
    """
    limit = min(length, *(length_limit(each.tokenizer, each.config, None) for each in sources))
    cut = [list(ids[at : at + limit]) for ids in texts for at in range(0, len(ids), limit)]
    cut = [piece for piece in cut if len(piece) >= SHORTEST]
    if len(cut) < 2:
        raise BadInput("there are fewer than two texts to fit to and to measure on. Give more, or a smaller --length.")
    return cut[:: max(1, len(cut) // most)][:most]
