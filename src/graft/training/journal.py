"""The journal of a MeZO run: eight bytes a step, from which the whole run can be made again without data or forwards.

`mezo.log` begins with a line of JSON (the method, what trained and how, and a hash of the start) and then holds, for
each step, the half difference of the two losses and the share of the peak rate as little-endian 32-bit floats; of a run
with a time budget also how much of it was over, as a 64-bit one. What the method prepared from training rows, such as
the places of a mask, is beside it in `mezo.safetensors`.

    adapter = graft.attach(model, method)        # with the seed of the run: torch.manual_seed(seed) before it
    replay(adapter, "runs/default/mezo.log")     # the tensors after the last step, to the bit
"""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from graft.attach import Adapter
from graft.errors import BadInput
from graft.files import write_text, writing
from graft.method import describe, restore
from graft.moment import Moment
from graft.spelling import spelled
from graft.training.mezo import MeZO, fingerprint
from graft.training.resume import tensors_of
from graft.training.trainer import GraftTrainer

NAME, PREPARED = "mezo.log", "mezo.safetensors"
STEP, TIMED = struct.Struct("<ff"), struct.Struct("<ffd")


class Journal(TrainerCallback):
    """Writes the journal of a run while it trains; on resuming cuts it to the steps that the checkpoint knows.

    Made before the methods prepare themselves, so that it can tell what they changed. Steps of which two numbers do not
    tell all (`MeZO.whole`) have none.
    """

    def __init__(self, path: Path, trainer: GraftTrainer) -> None:
        self.path, self.trainer = path, trainer
        self.step = STEP if trainer.pace.seconds is None else TIMED
        self.mezo: MeZO | None = None
        self.attached = _marks(trainer.adapter)

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the head, or cut the tail."""
        mezo = self.trainer.mezo
        if mezo is None or mezo.whole:
            return
        self.mezo = mezo
        if state.global_step == 0:
            self._begin(mezo)
            return
        try:
            with self.path.open("r+b") as file:
                file.readline()
                file.truncate(file.tell() + self.step.size * state.global_step)
        except OSError as error:
            raise BadInput(
                f"{self.path}: the journal of the steps up to {state.global_step} cannot be opened ({error.strerror}). "
                "Put it back, or start anew in another --folder."
            ) from error

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add a step."""
        if self.mezo is None:
            return
        when = () if self.step is STEP else (self.trainer.moment.share,)
        with self.path.open("ab") as file:
            file.write(self.step.pack(self.mezo.slope, self.mezo.factor, *when))

    def _begin(self, mezo: MeZO) -> None:
        adapter = self.trainer.adapter
        state = tensors_of(adapter)
        changed = [name for name, mark in _marks(adapter).items() if self.attached.get(name) != mark]
        if changed:
            with writing(self.path.with_name(PREPARED)) as aside:
                save_file({name: state[name].detach().cpu().contiguous() for name in changed}, aside)
        head = {
            "method": _described(adapter),
            "seed": mezo.seed,
            "steps": None if self.step is TIMED else self.trainer.pace.steps,
            "start": fingerprint(state),
            "prepared": bool(changed),
            "groups": _groups(adapter, mezo),
        }
        write_text(self.path, json.dumps(head) + "\n")


def replay(adapter: Adapter, path: str | Path, steps: int | None = None) -> int:
    """Make a run again from its journal, on a fresh adapter of the same method and seed; gives how many steps it took.

    steps: only so many, such as those up to the best one. Exact on the kind of device that the run was on, whose random
    numbers are drawn again. Raises BadInput for a file that is no journal, or the journal of another method or start.
    """
    line, _, body = Path(path).read_bytes().partition(b"\n")
    try:
        head = json.loads(line)
        method, seed, total, start = (head[name] for name in ("method", "seed", "steps", "start"))
        prepared, groups = head["prepared"], list(head["groups"])
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: this is not the journal of a MeZO run ({error}).") from error
    if method != _described(adapter):
        raise BadInput(
            f"{path}: the run was of {spelled(restore(method))}, and this adapter is of {spelled(adapter.method)}. "
            "Attach the method of the run, with all of its hyperparameters."
        )
    kept = _prepared(Path(path).with_name(PREPARED)) if prepared else {}
    if fingerprint({**tensors_of(adapter), **kept}) != start:
        raise BadInput(
            f"{path}: the run began with other tensors. Attach the same method with the seed of the run "
            f"(torch.manual_seed({seed})) to the same base, and replay before anything trains."
        )
    adapter.begin(kept)
    own = dict(adapter.named_parameters())
    for group in groups:
        group["params"] = [own[name] for name in group.pop("names")]
    mezo = MeZO(groups, seed)
    taken = list(_taken(body, total))[:steps]
    for moment, slope, factor in taken:
        for term, parts in adapter.terms():
            term.during("forward", moment, parts)
        mezo.move(moment, slope, factor)
        for term, parts in adapter.terms():
            term.during("stepped", moment, parts)
    return len(taken)


def _taken(body: bytes, total: int | None) -> Iterator[tuple[Moment, float, float]]:
    """The whole steps of a journal: when each was, its slope and its rate."""
    step, before = TIMED if total is None else STEP, 0.0
    for number, (slope, factor, *share) in enumerate(step.iter_unpack(body[: len(body) // step.size * step.size])):
        now = share[0] if total is None else min(number / total, 1.0)
        yield Moment(number, now, before), slope, factor
        before = now


def _prepared(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise BadInput(
            f"{path}: what the method prepared before the run cannot be read ({error}). It belongs beside the journal: "
            "copy both."
        ) from error


def _marks(adapter: Adapter) -> dict[str, str]:
    """A hash of each tensor of the parts, by name."""
    return {name: fingerprint({name: t}) for name, t in tensors_of(adapter).items() if name not in adapter.trained}


def _described(adapter: Adapter) -> Any:
    """The method, as JSON has it."""
    return json.loads(json.dumps(describe(adapter.method)))


def _groups(adapter: Adapter, mezo: MeZO) -> list[dict[str, Any]]:
    names = {id(p): name for name, p in adapter.named_parameters()}
    return [
        {"names": [names[id(p)] for p in group["params"]], "initial_lr": group["initial_lr"],
         "weight_decay": group["weight_decay"], "perturbation": group["perturbation"]}
        for group in mezo.param_groups
    ]  # fmt: skip
