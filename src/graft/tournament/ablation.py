"""What each span of layers is worth: the score of a trained adapter with its parts there switched off."""

from typing import Any

from graft import metrics
from graft.attach.silence import silenced
from graft.attach.spot import require
from graft.errors import Refused
from graft.scoring import score
from graft.tournament.arena import Arena


def spans(arena: Arena, name: str) -> dict[str, Any]:
    """The score on the test rows without the adapter's parts at layers first to last, for every such span.

    Nothing is trained again. Raises Refused for an adapter that has no parts at numbered layers.
    """
    chosen = metrics.get(arena.design.metric or arena.task.metrics[0])
    placed = require(arena.model, name).adapters[name].placed
    layers = sorted({p.site.layer for p in placed if p.site is not None and p.site.layer is not None and not p.head})
    if not layers:
        raise Refused(f"{name}: there is no part at a layer that could be switched off.")

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
