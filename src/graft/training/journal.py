"""The journal of a MeZO run: eight bytes a step, from which the whole run can be made again without data or forwards.

`mezo.log` begins with a line of JSON (what trained, how, and a hash of the start) and then holds, for each step, the
half difference of the two losses and the share of the peak rate as little-endian 32-bit floats.

    adapter = graft.attach(model, method)        # with the seed of the run: torch.manual_seed(seed) before it
    replay(adapter, "runs/default/mezo.log")     # the tensors after the last step, to the bit
"""

import json
import struct
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from graft.attach import Adapter
from graft.errors import BadInput
from graft.files import write_text
from graft.training.mezo import MeZO, fingerprint
from graft.training.trainer import GraftTrainer

NAME = "mezo.log"
STEP = struct.Struct("<ff")


class Journal(TrainerCallback):
    """Writes the journal of a run while it trains; on resuming cuts it to the steps that the checkpoint knows.

    Steps of which two numbers do not tell all (`MeZO.whole`) have none.
    """

    def __init__(self, path: Path, trainer: GraftTrainer) -> None:
        self.path, self.trainer = path, trainer
        self.mezo: MeZO | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the head, or cut the tail."""
        mezo = self.trainer.mezo
        if mezo is None or mezo.whole:
            return
        self.mezo = mezo
        if state.global_step == 0:
            write_text(self.path, json.dumps(_head(self.trainer.adapter, mezo)) + "\n")
            return
        with self.path.open("r+b") as file:
            file.readline()
            file.truncate(file.tell() + STEP.size * state.global_step)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Add a step."""
        if self.mezo is None:
            return
        with self.path.open("ab") as file:
            file.write(STEP.pack(self.mezo.slope, self.mezo.factor))


def replay(adapter: Adapter, path: str | Path, steps: int | None = None) -> int:
    """Make a run again from its journal, on a fresh adapter of the same method and seed; gives how many steps it took.

    steps: only so many, such as those up to the best one. Exact on the kind of device that the run was on, whose random
    numbers are drawn again. Raises BadInput for a file that is no journal, or the journal of another start.
    """
    line, _, body = Path(path).read_bytes().partition(b"\n")
    try:
        head = json.loads(line)
        mezo = MeZO(_groups(adapter, head["groups"]), head["seed"])
        start = head["start"]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: this is not the journal of a MeZO run of this method ({error}).") from error
    seen = fingerprint(p for group in mezo.param_groups for p in group["params"])
    if seen != start:
        raise BadInput(
            f"{path}: the run began with other tensors. Attach the same method with the seed of the run "
            f"(torch.manual_seed({head['seed']})) to the same base, and replay before anything trains."
        )
    taken = list(STEP.iter_unpack(body[: len(body) // STEP.size * STEP.size]))[:steps]
    for number, (slope, factor) in enumerate(taken):
        mezo.move(number, slope, factor)
    return len(taken)


def _head(adapter: Adapter, mezo: MeZO) -> dict[str, Any]:
    names = {id(p): name for name, p in adapter.named_parameters()}
    groups = [
        {"names": [names[id(p)] for p in group["params"]], "lr": group["initial_lr"],
         "weight_decay": group["weight_decay"], "perturbation": group["perturbation"]}
        for group in mezo.param_groups
    ]  # fmt: skip
    start = fingerprint(p for group in mezo.param_groups for p in group["params"])
    return {"seed": mezo.seed, "start": start, "groups": groups}


def _groups(adapter: Adapter, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    own = dict(adapter.named_parameters())
    return [
        {"params": [own[name] for name in group["names"]], "initial_lr": group["lr"], "lr": group["lr"],
         "weight_decay": group["weight_decay"], "perturbation": group["perturbation"]}
        for group in groups
    ]  # fmt: skip
