"""What a part computes, found by running it: what its change depends on, and how."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from graft.attach.adapter import Placed

Change = Callable[[Mapping[str, Tensor]], Tensor]


@dataclass(frozen=True)
class Tried:
    """What came of it.

    reads: which of what enters its site ("x"), what leaves it ("y") and the residual stream ("residual") the change
    depends on. varies: it is not the same for every token. itself: it depends on what it changes. linear: it is linear
    in what it reads. alone: it is not the same for every token where all that it reads is zero. rescales: it depends
    entry by entry on what it changes, and is nothing where that is. mixes: at one token it depends on others. stored:
    virtual tokens or keys that no network computes.
    """

    reads: frozenset[str] = frozenset()
    varies: bool = False
    itself: bool = False
    linear: bool = False
    alone: bool = False
    rescales: bool = False
    mixes: bool = False
    stored: bool = True


def tried(model: nn.Module, item: Placed) -> Tried | None:
    """Run the model once and look at one part when its turn comes; None where only its parameters are used, and of one
    that runs layers."""
    found: list[Tried] = []
    for verb in sorted(item.part.verbs() - {"params", "around"}):
        original = getattr(item.part, verb)

        def spy(*arguments: Any, verb: str = verb, original: Callable = original) -> Any:
            if not found:
                found.append(_looked_at(item, verb, original, arguments))
            return original(*arguments)

        object.__setattr__(item.part, verb, spy)
        try:
            model(input_ids=torch.arange(1, 8)[None], use_cache=False)
        finally:
            object.__delattr__(item.part, verb)
    return found[0] if found else None


def _looked_at(item: Placed, verb: str, original: Callable, arguments: tuple) -> Tried:
    if verb in ("tokens", "keys_values"):
        given = original(*arguments)
        whole = given if isinstance(given, tuple) else (given,)
        parts = (item.part, *getattr(item.part, "lent", ()))
        matrices = [tensor for part in parts for tensor in part.parameters() if tensor.dim() > 1]
        return Tried(stored=all(each is None or each.grad_fn is None for each in whole) or len(matrices) == 1)
    *streams, site, call = arguments
    inputs = dict(zip("xy" if verb == "after" else "x", streams, strict=True))
    key = ("residual", site.name)
    if item.part.reads_residual and key in call.captured:
        inputs["residual"] = call.captured[key]
    own = "y" if verb == "after" else "x"

    def change(given: Mapping[str, Tensor]) -> Tensor:
        passed = [given.get(name, stream) for name, stream in zip("xy", streams, strict=False)]
        seen = replace(call, captured={**call.captured, key: given["residual"]}) if "residual" in given else call
        return original(*passed, site, seen) - given[own]

    return _measured(change, {name: each for name, each in inputs.items() if each.is_floating_point()}, own)


@torch.no_grad()
def _measured(change: Change, inputs: dict[str, Tensor], own: str) -> Tried:
    noise = {name: torch.randn_like(each) for name, each in inputs.items()}
    base = change(inputs)

    def differs(a: Tensor, b: Tensor) -> bool:
        return not torch.allclose(a, b, atol=1e-4 * float(base.abs().max()), rtol=1e-3)

    reads = {name for name in inputs if differs(change({**inputs, name: noise[name]}), base)}
    first = {name: torch.cat((noise[name][:, :1], each[:, 1:]), 1) for name, each in inputs.items()}
    half = torch.arange(base.shape[-1]) % 2
    zero = change({name: torch.zeros_like(each) for name, each in inputs.items()})
    both = change({name: each + noise[name] for name, each in inputs.items()})
    mixes = differs(change(first)[:, 1:], base[:, 1:])
    return Tried(
        reads=frozenset(reads),
        varies=differs(base, base[:, :1].expand_as(base)),
        itself=own in reads,
        linear=not differs(both + zero, base + change(noise)),
        alone=differs(zero, zero[:, :1].expand_as(zero)) and not mixes,
        rescales=reads == {own} and not differs(change({**inputs, own: inputs[own] * half}), base * half),
        mixes=mixes,
    )
