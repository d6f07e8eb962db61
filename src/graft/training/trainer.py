"""The one subclass of transformers' Trainer. Each override says which part of it is replaced, and why.

    training_step                   rows of a step go through in parts that fit the memory, halved when it runs out
    evaluate                        the validation loss alone, by the task
    create_optimizer, _scheduler    the methods' own groups; a schedule by steps or by time
    _get_train_sampler              an order that is a function of seed and epoch
    _save_checkpoint                the whole of it, written aside and renamed, without pickle
    _load_*                         the other direction

With FSDP or DeepSpeed, whose states are spread over processes, the checkpoints are transformers' own.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from graft.attach import Adapter, of_tasks
from graft.data.losses import inference, to_device
from graft.data.task import Features, Task
from graft.data.tasks_of_rows import named
from graft.errors import Refused
from graft.memory import Portions, ran_out, release
from graft.moment import Moment
from graft.scoring import length
from graft.training import resume
from graft.training.batching import Order
from graft.training.mezo import MeZO
from graft.training.optimization import optimizer
from graft.training.options import TrainingOptions
from graft.training.pace import Pace
from graft.training.schedule import scheduler
from graft.training.still import still

Objective = Callable[[Sequence[int]], float]  # of rows by number: what MeZO lowers instead of the loss

SHOWN = 8  # rows named when a loss is not finite


class GraftTrainer(Trainer):
    """Trains one adapter on the features of a task. `where` names the origin of each row for messages."""

    def __init__(
        self,
        model: nn.Module,
        arguments: TrainingArguments,
        *,
        adapter: Adapter,
        task: Task,
        tokenizer: Any,
        train: Sequence[Features],
        validation: Sequence[Features],
        options: TrainingOptions,
        pace: Pace,
        rows_at_once: int,
        where: Sequence[str],
        folder: Path | None,
        facts: dict[str, Any],
        objective: Objective | None = None,
    ) -> None:
        super().__init__(model, arguments, data_collator=_as_they_are, train_dataset=train)
        self.grafted, self.adapter, self.task, self.tokenizer = model, adapter, task, tokenizer
        self.validation, self.options, self.pace = validation, options, pace
        self.moment = Moment(0, 0.0, 0.0)
        self.portions, self.where = Portions(rows_at_once), where
        self.folder, self.facts = folder, facts
        self.objective: Objective | None = objective
        self.still = still(adapter, options.base_dropout)
        self.mezo: MeZO | None = None
        self.best: dict[str, Tensor] | None = None
        self.best_loss, self.best_step, self.worse = math.inf, 0, 0

    # For Trainer.training_step: forward and backward of one batch. Here a batch is all rows of an optimizer step, which
    # makes the gradient the same however many parts it is computed in.
    def training_step(self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward of one optimizer step; its mean loss over trained tokens (or rows)."""
        features = sorted(inputs["features"], key=length, reverse=True)  # what is too large fails at once
        while True:
            try:
                loss = self._step(model, features) if self.mezo is None else self._estimate(self.mezo, features)
            except (RuntimeError, MemoryError) as error:
                if not ran_out(error):
                    raise
                if self.accelerator.num_processes > 1:
                    raise Refused("memory ran out on one of several processes. Give a larger --accumulate.") from error
                self.portions.size = min(self.portions.size, len(features))
                self.portions.size = self.portions.halve(error)
            else:
                break
            model.zero_grad()
            release()
        if not torch.isfinite(loss):
            self._not_finite(features)
        return loss

    def _step(self, model: nn.Module, features: Sequence[Features]) -> Tensor:
        model.train()
        for module in self.still:
            module.training = False
        size = self.portions.size
        parts = [features[at : at + size] for at in range(0, len(features), size)]
        batches = [self.task.inputs(self.task.collate(part, self.tokenizer)) for part in parts]
        counts = [self._count(batch) for batch in batches]
        total = float(self.accelerator.reduce(torch.tensor(float(sum(counts)), device=self.args.device), "mean"))
        result = torch.zeros((), device=self.args.device)
        for number, (part, batch, count) in enumerate(zip(parts, batches, counts, strict=True)):
            alone = nullcontext() if number == len(parts) - 1 else self.accelerator.no_sync(model)
            with alone, of_tasks(self.grafted, named(part)):
                loss = self.mean_loss(batch, model) * (count / total)
                self.accelerator.backward(loss)
            result += loss.detach()
            self.pace.tokens += int(batch["attention_mask"].sum())
        for method, placed in self.adapter.terms():
            penalty = method.during("loss", self.moment, placed)
            if penalty is not None:
                self.accelerator.backward(penalty)
                result += penalty.detach()
        return result

    def _estimate(self, mezo: MeZO, features: Sequence[Features]) -> Tensor:
        """One optimizer step by forwards alone; the mean loss of the two places it looked at."""
        step = self.state.global_step
        self.pace.tokens += sum(map(length, features))
        loss = mezo.estimate(step, lambda: self._lowered(features, step))
        return torch.tensor(loss, device=self.args.device)

    def _lowered(self, features: Sequence[Features], step: int) -> float:
        """What MeZO lowers, at the tensors as they are.

        The base is in evaluation mode, as in the paper. The parts train, and draw the same numbers at both places.
        """
        if self.objective is not None:
            return self.objective([feature["item"] for feature in features])
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with inference(self.grafted), torch.random.fork_rng(devices):
            torch.manual_seed(self.options.seed + step)
            for placed in self.adapter.placed:
                placed.part.train()
            sums = list(self.portions.each(features, self._mean))
            penalties = [method.during("loss", self.moment, parts) for method, parts in self.adapter.terms()]
        mean = sum(mean * count for mean, count in sums) / sum(count for _, count in sums)
        return mean + sum(float(penalty) for penalty in penalties if penalty is not None)

    def _count(self, batch: dict[str, Tensor]) -> int:
        """What the model's mean loss is a mean over: trained tokens, or rows."""
        labels = batch.get("labels")
        if labels is None or labels.is_floating_point():
            return len(batch["input_ids"])
        return int((labels[..., 1:] if self._loss_shifts_labels else labels).ne(-100).sum())

    def _autocast(self) -> AbstractContextManager:
        # Not the Trainer's own: that one rewrites the model's forward and leaves it so.
        return torch.autocast(self.args.device.type, torch.bfloat16) if self.options.autocast else nullcontext()

    def _not_finite(self, features: Sequence[Features]) -> None:
        """Find the rows whose own loss is not finite, and stop."""
        broken = [name for name, p in self.adapter.named_parameters() if not torch.isfinite(p).all()]
        bad = [] if broken else [f for f in features if not math.isfinite(self._mean_loss([f])[0])]
        named = [self.where[f["item"]] if f["item"] < len(self.where) else f"row {f['item']}" for f in bad or features]
        shown = ", ".join(named[:SHOWN]) + (f" and {len(named) - SHOWN} more" if len(named) > SHOWN else "")
        if broken:
            why = f"{len(broken)} trained tensors ({broken[0]}) are not finite: it diverged. The step's rows: {shown}"
        elif bad:
            why = f"these rows give it by themselves: {shown}"
        else:
            why = f"no row gives it alone; the step's rows: {shown}"
        raise Refused(
            f"the loss is not a finite number at step {self.state.global_step + 1}: {why}. "
            "Look at these rows, lower --lr, or use --dtype fp32."
        )

    # For Trainer.evaluate and its evaluation_loop, which gather logits; what is needed is one number.
    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: Any = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The loss on the validation rows, per trained token (or row); remembers the tensors at its best.

        Before its methods have settled an adapter is not what the run is to give: no step is the best until then.
        """
        sums = list(self.portions.each(sorted(self.validation, key=length, reverse=True), self._mean_loss))
        loss = sum(mean * count for mean, count in sums) / sum(count for _, count in sums)
        counts = self.settled or self.pace.over(self.state.global_step)
        if counts and loss < self.best_loss:
            self.best_loss, self.best_step, self.worse = loss, self.state.global_step, 0
            self.best = resume.copy_of(self.adapter)
        elif counts:
            self.worse += 1
            if self.options.patience and self.worse >= self.options.patience:
                self.control.should_training_stop = True
        metrics = {f"{metric_key_prefix}_loss": loss}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @property
    def settled(self) -> bool:
        """Whether what the last step left may be what the run gives."""
        return all(method.settled(self.moment) for method in self.adapter.method.methods())

    def _mean_loss(self, features: Sequence[Features]) -> tuple[float, int]:
        with inference(self.grafted):
            return self._mean(features)

    def _mean(self, features: Sequence[Features]) -> tuple[float, int]:
        batch = self.task.inputs(self.task.collate(features, self.tokenizer))
        with of_tasks(self.grafted, named(features)):
            return float(self.mean_loss(batch, self.grafted)), self._count(batch)

    def loss_of(self, features: Sequence[Features]) -> Tensor:
        """The model's own loss of some rows, by themselves."""
        with of_tasks(self.grafted, named(features)):
            return self.mean_loss(self.task.inputs(self.task.collate(features, self.tokenizer)), self.grafted)

    def mean_loss(self, batch: dict[str, Tensor], model: nn.Module) -> Tensor:
        """The model's own loss of a batch. `model` may be wrapped, as for several processes."""
        with self._autocast():
            loss = self.compute_loss(model, to_device(batch, self.grafted))
        assert isinstance(loss, Tensor)
        return loss

    # For Trainer.create_optimizer, which sorts all parameters by name into two groups.
    def create_optimizer(self, model: Any = None) -> Any:
        """The optimizer of the options, on the groups that the methods ask for."""
        if self.optimizer is None:
            self.optimizer = optimizer(self.adapter, self.options)
            self.mezo = self.optimizer if isinstance(self.optimizer, MeZO) else None
            if self.mezo is not None and self.accelerator.num_processes > 1:
                raise Refused("mezo trains in one process. Start one, or use --optimizer adamw.")
        return self.optimizer

    # For Trainer.create_scheduler, whose schedules know no time.
    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """The schedule over the run's steps or seconds."""
        if self.lr_scheduler is None:
            self.lr_scheduler = scheduler(optimizer or self.create_optimizer(), self.options, self.pace.share)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    # For Trainer._get_train_sampler, whose order depends on how often random numbers were drawn before.
    def _get_train_sampler(self, train_dataset: Any = None) -> Order:
        return Order([length(feature) for feature in self.train_dataset], self.options.batch, self.options.seed)  # type: ignore[union-attr]

    # For Trainer._save_checkpoint, which writes files one by one into their final folder, some of them pickled.
    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        if self._spread:
            super()._save_checkpoint(model, trial)
            return
        assert self.folder is not None
        self.store_flos()
        self.save(finished=False)

    def save(self, finished: bool) -> None:
        """Write a checkpoint; `finished` says that nothing is left to train."""
        assert self.folder is not None
        facts = {
            **self.facts,
            "step": self.state.global_step,
            "finished": finished,
            "seconds": self.pace.spent,
            "tokens": self.pace.tokens,
            "last": self.pace.last,
            "rows_at_once": self.portions.size,
            "best_loss": self.best_loss if math.isfinite(self.best_loss) else None,
            "best_step": self.best_step,
            "worse": self.worse,
        }
        earlier = self.best if self.best_step != self.state.global_step else None
        resume.write(
            self.folder, self.state.global_step, self.adapter, self.optimizer, self.lr_scheduler,  # type: ignore[arg-type]
            self.state, facts, earlier,
        )  # fmt: skip

    # For Trainer._load_from_checkpoint, which reads a whole model.
    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        if self._spread:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        self.restore(Path(resume_from_checkpoint))

    def restore(self, checkpoint: Path) -> None:
        """Put back the adapter and how far the run was."""
        facts = resume.read_facts(checkpoint)
        tensors = resume.read_tensors(checkpoint)
        assert tensors is not None
        resume.put(self.adapter, tensors, str(checkpoint))
        if facts["best_loss"] is not None:
            self.best_loss = facts["best_loss"]
            self.best = resume.read_tensors(checkpoint, "best") or tensors
        self.best_step, self.worse = facts["best_step"], facts["worse"]
        self.state.global_step = facts["step"]
        self.moment = Moment(facts["step"] - 1, facts["last"], facts["last"])
        self.pace.spent, self.pace.tokens, self.pace.last = facts["seconds"], facts["tokens"], facts["last"]
        self.portions.size = facts["rows_at_once"]

    # For Trainer._load_optimizer_and_scheduler, which unpickles.
    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._spread or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        resume.read_optimizer(Path(checkpoint), self.optimizer, self.lr_scheduler)  # type: ignore[arg-type]

    # For Trainer._load_rng_state, which unpickles.
    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self._spread or checkpoint is None:
            super()._load_rng_state(checkpoint)
            return
        resume.read_random(Path(checkpoint))

    @property
    def _spread(self) -> bool:
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)


def _as_they_are(features: list[Features]) -> dict[str, list[Features]]:
    # Collated later: only then is it known how many rows go through at once.
    return {"features": features}
