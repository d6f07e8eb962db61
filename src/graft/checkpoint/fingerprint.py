"""Is this the base an adapter was made for? A fingerprint: configuration, and type, shape and sample of every tensor.

The sample is a few entries at fixed places, so that fingerprinting a large model costs milliseconds, and values can be
compared across number formats: each as closely as the coarser of the two formats allows.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from graft.attach import grafted
from graft.errors import BadInput

SAMPLES = 6
# Relative error of rounding to a number format, with room for one more rounding on the way.
PRECISION = {torch.float64: 1e-8, torch.float32: 1e-6, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-7}
# What a configuration says about loading, labels or versions, not about the function of the model.
VOLATILE = {
    "_name_or_path", "architectures", "attn_implementation", "dtype", "id2label", "label2id", "num_labels",
    "problem_type",
    "quantization_config", "return_dict", "output_attentions", "output_hidden_states", "torch_dtype", "torchscript",
    "transformers_version", "use_cache", "finetuning_task", "experts_implementation", "chunk_size_feed_forward",
}  # fmt: skip


@dataclass(frozen=True)
class Tell:
    """What is kept of one tensor: type, shape, and a sample; None where values do not matter or cannot be read."""

    dtype: str
    shape: tuple[int, ...]
    sample: tuple[float, ...] | None

    def write(self) -> str:
        """As one line: `float32 32x96 0.12 -0.5 …`."""
        values = ("-",) if self.sample is None else (f"{value:.9g}" for value in self.sample)
        return " ".join((self.dtype, "x".join(map(str, self.shape)) or "scalar", *values))

    @classmethod
    def read(cls, line: Any) -> "Tell":
        """Read `write`'s line back. Raises BadInput for anything else."""
        try:
            dtype, shape, *values = line.split(" ")
            sizes = () if shape == "scalar" else tuple(int(size) for size in shape.split("x"))
            return cls(dtype, sizes, None if values == ["-"] else tuple(float(value) for value in values))
        except (AttributeError, ValueError) as error:
            raise BadInput(f"graft.json: {str(line)[:80]!r} is no line of a fingerprint.") from error


@dataclass(frozen=True)
class Fingerprint:
    """A model without adapters: its class, its configuration, and every tensor by its name below the base model."""

    kind: str
    config: Mapping[str, Any]
    tensors: Mapping[str, Tell]

    def outside(self, modules: Iterable[str]) -> "Fingerprint":
        """What is left without the tensors of some modules, such as a task head's."""
        inner = tuple(f"{module}." for module in modules)
        return replace(self, tensors={name: tell for name, tell in self.tensors.items() if not name.startswith(inner)})

    def as_json(self) -> dict[str, Any]:
        """As plain data; `from_json` reads it back."""
        lines = {name: tell.write() for name, tell in self.tensors.items()}
        return {"class": self.kind, "config": dict(self.config), "tensors": lines}

    @classmethod
    def from_json(cls, data: Any) -> "Fingerprint":
        """Read `as_json` back. Raises BadInput for anything else."""
        parts = [data.get(key) if isinstance(data, dict) else None for key in ("class", "config", "tensors")]
        if not (isinstance(parts[0], str) and isinstance(parts[1], dict) and isinstance(parts[2], dict)):
            raise BadInput("graft.json: the fingerprint of the base is not readable. Get the adapter again.")
        return cls(parts[0], parts[1], {name: Tell.read(line) for name, line in parts[2].items()})


def fingerprint(model: nn.Module, adapter: str | None = None) -> Fingerprint:
    """The fingerprint of the base of `model`; tensors that `adapter` replaces altogether are kept without a sample."""
    replaced = _replaced(model, adapter)
    tells = {}
    for path, tensor in untouched(model):
        sample = None if path in replaced else _sample(tensor)
        tells[_short(model, path)] = Tell(str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape), sample)
    return Fingerprint(type(model).__name__, _plain(model.config.to_dict()), tells)  # type: ignore[union-attr,operator]


def untouched(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Every parameter of the base by path, as it was before anything was attached, merged or trained in place."""
    record = grafted(model)
    kept: dict[str, Tensor] = {}
    for adapter in record.adapters.values() if record else ():
        if adapter.tuned_in_place:
            kept |= adapter.originals
        for (path, name), original in adapter.merged.items():
            kept[f"{path}.{name}" if path else name] = original
    for path, parameter in model.named_parameters():
        if ".graft." not in f".{path}":
            yield path, kept.get(path, parameter).detach()


def _replaced(model: nn.Module, name: str | None) -> set[str]:
    """Paths that an adapter stores whole: their values in the base do not matter."""
    record = grafted(model)
    if name is None or record is None:
        return set()
    adapter = record.adapters[name]
    heads = {placed.site.path for placed in adapter.placed if placed.head and placed.site is not None}
    paths = (path for path, _ in model.named_parameters())
    return {path for path in paths if path in adapter.trained or path.rpartition(".")[0] in heads}


def _short(model: nn.Module, path: str) -> str:
    """The path below the base model, which is the same whatever task class is around it."""
    prefix = getattr(model, "base_model_prefix", "")
    return path.removeprefix(f"{prefix}.") if prefix else path


def _sample(tensor: Tensor) -> tuple[float, ...] | None:
    """A few entries at fixed places; None where the tensor is not in memory or packed."""
    if tensor.device.type == "meta" or tensor.dtype not in PRECISION or tensor.numel() == 0:
        return None
    places = torch.linspace(0, tensor.numel() - 1, min(SAMPLES, tensor.numel()), dtype=torch.float64)
    values = tensor.reshape(-1)[places.long().to(tensor.device)].double().tolist()
    return tuple(values) if all(math.isfinite(value) for value in values) else None


def _plain(config: Any) -> Any:
    """A configuration without what is volatile, as JSON gives it back."""
    if isinstance(config, dict):
        return {
            str(key): _plain(value) for key, value in config.items() if key not in VOLATILE and "drop" not in str(key)
        }
    if isinstance(config, (list, tuple)):
        return [_plain(value) for value in config]
    return config if config is None or isinstance(config, (bool, int, float, str)) else str(config)
