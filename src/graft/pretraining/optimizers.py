"""The optimizer of a pre-training run: AdamW, or Muon for the matrices inside the layers with AdamW for the rest."""

from typing import Literal

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer
from transformers import PreTrainedModel

Name = Literal["adamw", "muon"]


def optimizers(model: PreTrainedModel, name: Name, rate: float, decay: float) -> list[Optimizer]:
    """One or two optimizers with the same learning rate. Weight decay goes to matrices only.

    muon (Jordan 2024): the update of a matrix is orthogonalized by five Newton-Schulz steps and scaled to the size of
    AdamW's (Liu et al. 2025, eq. 4), so that one rate serves both. Embeddings and the head stay with AdamW.
    """
    tables = [layer for layer in model.modules() if isinstance(layer, nn.Embedding)] + [model.get_output_embeddings()]
    outer = {id(parameter) for table in tables if table is not None for parameter in table.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    inner = [p for p in trained if name == "muon" and p.ndim == 2 and id(p) not in outer]
    chosen = {id(parameter) for parameter in inner}
    rest = [p for p in trained if id(p) not in chosen]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    made: list[Optimizer] = [AdamW([g for g in groups if g["params"]], lr=rate, betas=(0.9, 0.95), eps=1e-8)]
    if inner:
        made.append(Muon(inner, lr=rate, weight_decay=decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"))
    return made


def tensors(made: list[Optimizer]) -> dict[str, torch.Tensor]:
    """The state of the optimizers as named tensors: `<optimizer>.<parameter>.<entry>`."""
    flat = {}
    for number, optimizer in enumerate(made):
        for place, entries in optimizer.state_dict()["state"].items():
            for entry, value in entries.items():
                flat[f"{number}.{place}.{entry}"] = torch.as_tensor(value).detach().clone().contiguous()
    return flat


def restore(made: list[Optimizer], flat: dict[str, torch.Tensor]) -> None:
    """Put back what `tensors` gave."""
    for number, optimizer in enumerate(made):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in flat.items():
            owner, place, entry = name.split(".")
            if int(owner) == number:
                state.setdefault(int(place), {})[entry] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
