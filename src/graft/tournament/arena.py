"""An arena: one base and one data set, read once for all the trials on them. The weights come when they are needed."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from graft.anatomy import skeleton
from graft.data import Row, check, load
from graft.data import fit as fit_task
from graft.data.rows import some
from graft.data.task import Features, Task
from graft.errors import BadInput
from graft.loading import Base, Source, find_base, load_base
from graft.scoring.room import longest
from graft.tournament.design import Design, Place
from graft.training.frozen import Trunk

WRITERS = ("ForCausalLM", "LMHeadModel")  # how transformers ends the names of models that write


class Arena:
    """Where contestants meet: the task, the rows by split, and the base with its tokenizer.

    Labels are words to a base that writes: it is then asked for them (`verbalized`), not given a classifier. Raises
    what finding a base and loading rows raise, and BadInput where there is nothing to train, choose or test on.
    """

    def __init__(self, design: Design, model: str, number: int) -> None:
        rows = design.data[number]
        self.design, self.given = design, rows
        self.found: Source = find_base(model, design.trust_remote_code)
        data = load(rows.source, rows.columns, design.task, rows.template, design.splits, 0, design.allow)
        writes = any(name.endswith(WRITERS) for name in self.found.config.architectures or ())
        if design.task is None and data.task == "classification" and writes:
            data = replace(data, task="verbalized")
        self.task: Task = fit_task(data, self.found.tokenizer, self.found.config, design.length)
        self.data, report = check(data, self.task, self.found.tokenizer, design.allow)
        self.notes = [*data.notes, *report.lines()[1:]]
        if lacking := [split for split in ("train", "validation", "test") if split not in self.data.splits]:
            raise BadInput(
                f"{rows.source} has no {' and no '.join(lacking)} rows: a comparison trains on the first, chooses on "
                "the second and tests once on the third. Give files of each, or rows without splits to divide."
            )
        self.test = some(self.data.test, design.test_rows, 0)
        self._order = random.Random(0).sample(range(len(self.data.train)), len(self.data.train))
        self.trunk = Trunk()  # what frozen layers give, for all who train above them only
        self._features: dict[tuple[int, str], list[Features]] = {}

    @property
    def config(self) -> Any:
        """The base's configuration."""
        return self.found.config

    @property
    def tokenizer(self) -> Any:
        """The base's tokenizer."""
        return self.found.tokenizer

    @property
    def train(self) -> Sequence[Row]:
        """All train rows."""
        return self.data.train

    def rows(self, size: int) -> Sequence[Row]:
        """So many train rows (0: all), the same for everyone; a smaller board's rows are among a larger one's."""
        if not size or size >= len(self.data.train):
            return self.data.train
        return [self.data.train[at] for at in sorted(self._order[:size])]

    def held_back(self, size: int) -> Sequence[Row]:
        """The rows to choose by on a board of `size` train rows (0: all)."""
        return some(self.data.validation, self.design.validation(len(self.rows(size))), 0)

    def features(self, size: int, split: str) -> list[Features]:
        """The features of a board's train or validation rows, made once."""
        if (size, split) not in self._features:
            rows = self.rows(size) if split == "train" else self.held_back(size)
            self._features[size, split] = self.task.features(rows, self.tokenizer, train=split == "train")
        return self._features[size, split]

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return longest(self.task, [*self.data.train, *self.data.validation, *self.test], self.tokenizer)

    @cached_property
    def base(self) -> Base:
        """The base with its weights, from the first use on."""
        return load_base(self.found, self.task, dtype=self.design.dtype, device=self.design.device)

    @property
    def model(self) -> nn.Module:
        """The base as a model for the task, untouched between trials."""
        return self.base.model

    def bare(self) -> nn.Module:
        """The base as a model for the task without its weights, from the configuration alone. Raises as loading it."""
        config = deepcopy(self.config)
        config.update(self.task.model_options())
        return skeleton(config, self.task.auto(config))

    @property
    def fresh(self) -> tuple[str, ...]:
        """The tensors of the base that its checkpoint lacks, such as a new classifier's."""
        return self.base.fresh

    def begin(self, seed: int) -> None:
        """Start a trial: the tensors that the checkpoint lacks are drawn anew from the seed."""
        modules: dict[str, nn.Module] = {}
        fresh = self.fresh  # which may load the base, and that draws random numbers too
        torch.manual_seed(seed)
        for path in fresh:
            parameter = self.model.get_parameter(path)
            parameter._is_hf_initialized = False  # type: ignore[attr-defined]  # or transformers leaves it as it is
            modules[path.rpartition(".")[0]] = self.model.get_submodule(path.rpartition(".")[0])
        with torch.no_grad():
            for module in modules.values():
                self.model._init_weights(module)  # type: ignore[operator]

    @property
    def weights(self) -> tuple[Any, ...]:
        """What decides the weights: two arenas with the same can share them."""
        return self.found.place, self.task.auto(self.config), json.dumps(self.task.model_options(), sort_keys=True)

    @cached_property
    def facts(self) -> str:
        """What decides results here, beside the contestants: base, task and rows."""
        base = {"name": self.found.given, "config": _stable(self.config)}
        return json.dumps([base, self.task.as_dict(), self.data.hash, self.design.test_rows], sort_keys=True)

    def card(self, size: int) -> dict[str, Any]:
        """The data as the page shows it, with the labels of the `size` train rows of a board."""
        named = bool(self.task.known())  # a regression's numbers are no classes
        labels = Counter(str(row["label"]) for row in self.rows(size) if named and "label" in row)
        return {
            "source": self.given.source, "sha256": self.data.hash, "kind": self.data.kind, "task": self.task.kind,
            "notes": list(self.notes), "labels": dict(labels.most_common()),
        }  # fmt: skip


class Arenas:
    """The arenas of a process: the rows of all, the weights of one base at a time."""

    def __init__(self, design: Design) -> None:
        self.design = design
        self._all: dict[tuple[int, int], Arena] = {}
        self._loaded: Arena | None = None

    def at(self, place: Place) -> Arena:
        """The arena of a place, its rows read."""
        key = place.model, place.data
        if key not in self._all:
            self._all[key] = Arena(self.design, self.design.models[place.model], place.data)
        return self._all[key]

    def ready(self, place: Place) -> Arena:
        """The arena of a place, to be used now: what another one holds of its base is let go, or handed over."""
        arena, before = self.at(place), self._loaded
        if before is not None and before is not arena:
            base = before.__dict__.pop("base", None)
            before.trunk = Trunk()
            if base is not None and arena.weights == before.weights:
                arena.__dict__["base"] = base
        self._loaded = arena
        return arena

    def others(self, place: Place) -> list[Arena]:
        """The arenas of the same base and the other data sets."""
        return [self.at(Place(place.model, data, 0)) for data in range(len(self.design.data)) if data != place.data]


def _stable(config: Any) -> dict[str, Any]:
    """A configuration without what depends on where and by which version it was read."""
    skipped = ("transformers_version", "_name_or_path")
    return {name: value for name, value in json.loads(config.to_json_string(use_diff=False)).items()
            if name not in skipped}  # fmt: skip
