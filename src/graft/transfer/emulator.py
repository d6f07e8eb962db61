"""Emulators (Xiao, Lin, Han 2023, arXiv 2302.04870): a model's ends whole, and of its middle some blocks.

The kept blocks of the middle are spread evenly, its first and last among them, as in the authors' code. Distilled, they
learn to leave the middle's output at the top: least squares of the two models' states there, on texts.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from graft.anatomy import examine, skeleton
from graft.anatomy.emulated import KEY, Emulated
from graft.checkpoint import fingerprint
from graft.errors import BadInput, Refused
from graft.progress import Bar

BETAS = (0.9, 0.999)


def emulate(model: Any, ends: int, keep: float, base: str = "") -> Any:
    """A new model of a smaller depth, with copies of what it keeps of `model`; its configuration says of which.

    ends: blocks at the bottom, and at the top, that are whole; keep: share of those between that stay, at least one.
    base: what the full model is called. Raises BadInput for impossible numbers, Refused for a model without one stack
    of blocks that are alike.
    """
    anatomy = examine(model)
    if len(anatomy.stacks) != 1 or anatomy.stacks[0].repeats > 1:
        raise Refused(
            f"{type(model).__name__} is not one stack of blocks, each run once, and such alone have ends and a middle. "
            "Choose a decoder or an encoder."
        )
    layers = anatomy.stacks[0].layers
    kept = _kept(len(layers), ends, keep)
    revision = getattr(model.config, "_commit_hash", None) or ""
    said = Emulated(len(layers), kept, ends, base, revision, fingerprint(model).as_json())
    config = _shallower(model.config, len(layers), kept)
    config.architectures, config._name_or_path = [type(model).__name__], ""
    states: dict[str, Tensor] = {}
    places = {f"{layers[old]}.": f"{layers[new]}." for new, old in enumerate(kept)}
    for name, tensor in model.state_dict().items():
        start = next((path for path in places if name.startswith(path)), None)
        if start is not None:
            states[places[start] + name.removeprefix(start)] = tensor.detach().clone()
        elif not name.startswith(tuple(f"{path}." for path in layers)):
            states[name] = tensor.detach().clone()
    made = skeleton(config)
    wanted = {name: tensor.shape for name, tensor in made.state_dict().items()}
    if differ := sorted(n for n in wanted.keys() | states.keys()
                        if n not in wanted or n not in states or wanted[n] != states[n].shape):  # fmt: skip
        raise Refused(
            f"the blocks of this {type(model).__name__} are not alike: with fewer of them {differ[0]} is another. "
            "Choose a model of equal blocks."
        )
    made = _filled(type(model), config, states, model)
    setattr(made.config, KEY, said.write())
    return made


def _filled(kind: type, config: Any, states: dict[str, Tensor], like: Any) -> Any:
    first = next(like.parameters())
    with torch.random.fork_rng(devices=[]):
        made = kind(config)
    made.load_state_dict(states)
    made.to(device=first.device, dtype=first.dtype)
    return made.eval()


def _kept(layers: int, ends: int, keep: float) -> tuple[int, ...]:
    if layers < 3:
        raise BadInput(f"{layers} blocks are too few: an emulator has two ends and a middle. Choose a larger model.")
    middle = layers - 2 * ends
    if ends < 1 or middle < 1:
        raise BadInput(
            f"--ends {ends}: of {layers} blocks, {max(middle, 0)} would be between the ends. Choose 1 to "
            f"{(layers - 1) // 2}."
        )
    if not 0 < keep <= 1:
        raise BadInput(f"--keep {keep}: the share of the middle that stays is above 0 and at most 1.")
    number = max(1, round(keep * middle))
    stride = (middle - 1) / (number - 1) if number > 1 else 0.0
    start = 0 if number > 1 else (middle - 1) // 2
    between = [ends + start + round(index * stride) for index in range(number)]
    return (*range(ends), *between, *range(layers - ends, layers))


def _shallower(config: Any, layers: int, kept: Sequence[int]) -> Any:
    """The configuration with fewer blocks, and what it says of each block for those alone."""
    made = copy.deepcopy(config)
    for name, value in vars(config).items():
        if isinstance(value, (list, tuple)) and len(value) == layers and "layer" in name:
            setattr(made, name, type(value)(value[old] for old in kept))
    made.num_hidden_layers = len(kept)
    return made


def distill(
    full: Any,
    made: Any,
    rows: Sequence[Sequence[int]],
    *,
    steps: int,
    rate: float,
    batch: int,
    seed: int,
    show: bool = False,
) -> tuple[float, float]:
    """Train the emulator's middle to do what the full one's does; how far it was off on rows held out, and is.

    rows: texts as token ids, of which every fifth is measured on. Off by: mean square of the difference over that of
    what the middle adds. Raises BadInput for fewer than two rows.
    """
    if len(rows) < 2:
        raise BadInput("distilling needs some texts, and others to measure on: give at least two.")
    held_out, seen = rows[1::5], [ids for number, ids in enumerate(rows) if number % 5 != 1]
    ends = made.config.__dict__[KEY]["ends"]
    stack = examine(made).stacks[0]
    middle = tuple(f"{path}." for path in stack.layers[ends:-ends])
    flags = {name: parameter.requires_grad for name, parameter in made.named_parameters()}
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(name.startswith(middle))
    optimizer = torch.optim.AdamW([p for p in made.parameters() if p.requires_grad], rate, BETAS, weight_decay=0.0)
    draws = torch.Generator().manual_seed(seed)
    before = _off(full, made, held_out, ends)
    with Bar("distilling", show) as bar:
        for step in range(steps):
            bar.update(step / steps)
            chosen = [seen[index] for index in torch.randint(len(seen), (batch,), generator=draws).tolist()]
            loss = torch.stack([torch.stack(_errors(full, made, ids, ends)) for ids in chosen]).sum(0)
            optimizer.zero_grad()
            (loss[0] / loss[1].clamp(min=1e-12)).backward()
            optimizer.step()
    for name, parameter in made.named_parameters():
        parameter.requires_grad_(flags[name])
    return before, _off(full, made, held_out, ends)


@torch.no_grad()
def _off(full: Any, made: Any, rows: Sequence[Sequence[int]], ends: int) -> float:
    found = torch.stack([torch.stack(_errors(full, made, ids, ends)) for ids in rows]).sum(0)
    return float(found[0] / found[1].clamp(min=1e-12))


def _errors(full: Any, made: Any, ids: Sequence[int], ends: int) -> tuple[Tensor, Tensor]:
    """Of one text: the square of the difference between the middles' outputs, and of what the full one adds."""
    row = torch.tensor([list(ids)], device=next(made.parameters()).device)
    with torch.no_grad():
        states = full(input_ids=row, output_hidden_states=True).hidden_states
        top, bottom = states[-1 - ends].float(), states[ends].float()
    ours = made(input_ids=row, output_hidden_states=True).hidden_states[-1 - ends].float()
    return (ours - top).square().sum(), (top - bottom).square().sum()
