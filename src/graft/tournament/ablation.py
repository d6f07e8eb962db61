"""What each span of layers is worth: the score of a trained adapter with its parts there switched off."""

from typing import Any

from graft import metrics
from graft.attach.silence import layers_of, silenced
from graft.attach.spot import require
from graft.scoring import score
from graft.tournament.arena import Arena


def spans(arena: Arena, name: str) -> dict[str, Any]:
    """The score on the test rows without the adapter's parts at layers first to last, for every such span.

    Nothing is trained again. Raises Refused for an adapter that has no parts to switch off (see `silenced`).
    """
    chosen = metrics.get(arena.design.metric or arena.task.metrics[0])
    layers = layers_of(require(arena.model, name).adapters[name])

    def scored() -> float:
        return chosen.score(score(arena.model, arena.tokenizer, arena.task, arena.test)).value

    whole = scored()
    loss = []
    for at, first in enumerate(layers):
        for last in layers[at:]:
            with silenced(arena.model, name, range(first, last + 1)):
                value = scored()
            loss.append({"first": first, "last": last, "score": value, "change": value - whole})
    return {"layers": layers, "whole": whole, "loss": loss}
