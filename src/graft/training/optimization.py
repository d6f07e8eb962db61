"""What trains, in groups that the methods ask for, and the optimizer of the run on them.

adamw             Loshchilov and Hutter 2019, arXiv 1711.05101, as one kernel where there is one
lora+             the same, with a larger rate for the B of every update B·A (Hayou et al. 2024, arXiv 2402.12354)
adamw8bit         its moments in 8 bits (Dettmers et al. 2022, arXiv 2110.02861), by bitsandbytes
paged_adamw8bit   these moved to main memory when a GPU's runs out (arXiv 2305.14314 §3), by bitsandbytes
mezo              no gradients: `graft.training.mezo`
"""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from graft.attach import Adapter
from graft.errors import BadInput, Refused
from graft.method import Method, Part
from graft.training.mezo import MeZO, scale
from graft.training.options import TrainingOptions

RATIO = 16.0  # the rate of B over that of A with lora+
BETAS, EPS = (0.9, 0.999), 1e-8
EIGHT_BITS = {"adamw8bit": "AdamW8bit", "paged_adamw8bit": "PagedAdamW8bit"}


def optimizer(adapter: Adapter, options: TrainingOptions) -> Optimizer:
    """The optimizer that the options name, on the groups of the methods. Raises BadInput and Refused."""
    trained = groups(adapter, options)
    if options.optimizer == "mezo":
        return MeZO(trained, options.seed, whole=any(method.reads_gradients for method, _ in adapter.terms()))
    if options.optimizer in EIGHT_BITS:
        return getattr(_bitsandbytes(options), EIGHT_BITS[options.optimizer])(trained, betas=BETAS, eps=EPS)
    fused = all(p.device.type in ("cpu", "cuda") for group in trained for p in group["params"])
    return AdamW(trained, betas=BETAS, eps=EPS, fused=fused)


def groups(adapter: Adapter, options: TrainingOptions) -> list[dict[str, Any]]:
    """What trains, each term of a sum with its own learning rate; what is not decayed (`Part.decayed`) apart.

    A rate given in the options stands for the method's own, in a sum the smallest; groups that are not `apart` keep
    their ratio to it. Raises BadInput when nothing trains.
    """
    found: list[dict[str, Any]] = []
    suits = [
        scale(method, parts) if options.optimizer == "mezo" else (None, method.learning_rate)
        for method, parts in adapter.terms()
    ]
    factor = 1.0 if options.lr is None else options.lr / min(rate for _, rate in suits)
    for (method, parts), (perturbation, suited) in zip(adapter.terms(), suits, strict=True):
        own = method.learning_rate
        wanted = [dict(group) for group in method.groups(parts)]
        if options.optimizer == "lora+":
            wanted = _faster(method, parts, wanted)
        in_place = [adapter.model.get_parameter(path) for path in adapter.trained]
        if in_place:
            wanted.append({"params": in_place})
        decayed = {id(p) for part in parts for p in part.decayed()} | {id(p) for p in in_place if p.dim() > 1}
        for group in wanted:
            rate = group.pop("lr", own)
            params = group.pop("params")
            apart = group.pop("apart", False) and perturbation is None
            group["lr"] = rate if apart else factor * suited * rate / own
            if perturbation is not None:
                group["perturbation"] = options.perturbation or perturbation
            decay = group.pop("weight_decay", options.weight_decay)
            for decays, share in ((True, decay), (False, 0.0)):
                chosen = [p for p in params if (id(p) in decayed) == decays]
                if chosen:
                    found.append({**group, "params": chosen, "weight_decay": share})
    if not found:
        raise BadInput(f"adapter {adapter.name!r} has no tensor that trains. Choose a method that has.")
    return found


def check_optimizer(adapter: Adapter, options: TrainingOptions) -> None:
    """Raise BadInput for an optimizer that is not here or has nothing to train, Refused for one that does not suit."""
    if options.optimizer in EIGHT_BITS:
        _bitsandbytes(options)
    groups(adapter, options)


def _faster(method: Method, parts: Sequence[Part], wanted: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The groups of a method with each B in a group of its own.

    Raises Refused where no part is a product B·A, and where the method gives some of its tensors a rate already.
    """
    second = {id(part.B) for part in parts if isinstance(getattr(part, "B", None), nn.Parameter)}
    if not second:
        raise Refused(
            f"lora+ gives the B of updates B·A a larger learning rate, and {method.slug()} has none. "
            "Use --optimizer adamw, or a method such as lora or dora."
        )
    if any("lr" in group for group in wanted):
        raise Refused(
            f"lora+ gives the B of updates B·A a larger learning rate, and {method.slug()} has rates of its own, which "
            "it would multiply again. Use --optimizer adamw."
        )
    found = []
    for group in wanted:
        for fast in (False, True):
            chosen = [p for p in group["params"] if (id(p) in second) == fast]
            if chosen:
                found.append({**group, "params": chosen, "lr": method.learning_rate * (RATIO if fast else 1)})
    return found


def _bitsandbytes(options: TrainingOptions) -> Any:
    found = importlib.util.find_spec("bitsandbytes")
    if found is None or found.origin is None:  # a folder that happens to be called so has none
        raise BadInput(
            f"the optimizer {options.optimizer} is of bitsandbytes, which is not installed: "
            "pip install 'graft[quant]', or use --optimizer adamw."
        )
    return importlib.import_module("bitsandbytes.optim")
