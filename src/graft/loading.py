"""Base models and their tokenizers: from a folder, a hub id, the name of a bundled base, or a live model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from graft import bases, checkpoint
from graft.anatomy.skeletons import configuration
from graft.checkpoint.source import native
from graft.data.padding import prepare_padding
from graft.data.task import Task, checked_head
from graft.errors import BadInput, Refused, sentence

Precision = Literal["auto", "bf16", "fp32"]


@dataclass(frozen=True)
class Source:
    """Where a base is: `place` is what `from_pretrained` takes; what was given is `given`."""

    given: str
    place: str
    config: Any
    tokenizer: Any
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Base:
    """A base ready to be tuned. `fresh`: tensors that its checkpoint lacks and that start at random; `notes`: what a
    user should know."""

    model: nn.Module
    tokenizer: Any
    fresh: tuple[str, ...]
    notes: tuple[str, ...]


def find_base(model: str | Path, trust_remote_code: bool = False) -> Source:
    """Look a base up and read its configuration and tokenizer, but no weights.

    trust_remote_code: run the code that comes with the model, if any. Raises BadInput where there is no model or no
    tokenizer, Refused for a model with code of its own that was not trusted.
    """
    place = bases.place(model)
    if not place.strip():
        raise BadInput("no model was given: name a folder, a Hugging Face id or a bundled base.")
    try:
        config = _trusted(place) if trust_remote_code else configuration(place)
    except BadInput as error:
        raise BadInput(f"{error}{bases.hint(place)}") from error
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{model}: no usable tokenizer. {sentence(error)}") from error
    if len(tokenizer) <= len(tokenizer.all_special_tokens):  # what transformers makes of a folder without its files
        raise BadInput(
            f"{model}: no usable tokenizer. Its vocabulary is empty; put the tokenizer's files beside the model."
        )
    return Source(str(model), place, config, tokenizer, trust_remote_code)


def load_base(source: Source, task: Task, *, dtype: Precision = "auto", device: str = "auto", seed: int = 0) -> Base:
    """The model for a task, on a device, in evaluation mode.

    dtype: "auto" is bf16 on a GPU that has it, else fp32. device: "auto" is a GPU where there is one. seed: of tensors
    that the checkpoint lacks, such as a new head. Raises BadInput for a device that is not here or weights that do not
    load, Refused where transformers has no such head for this model.
    """
    model, report = _read(source, task.auto(source.config), dtype, device, seed, task.model_options())
    resized = [entry if isinstance(entry, str) else entry[0] for entry in report["mismatched_keys"]]
    fresh = tuple(sorted({*report["missing_keys"], *resized}))
    notes = [note] if (note := prepare_padding(source.tokenizer, model)) else []
    if fresh:
        shown = ", ".join(fresh[:4]) + (f" and {len(fresh) - 4} more" if len(fresh) > 4 else "")
        notes.append(f"{source.given} has no weights for {shown}: they start at random (seed {seed})")
    return Base(model, source.tokenizer, fresh, tuple(notes))


def load_generator(source: Source, *, dtype: Precision = "auto", device: str = "auto") -> nn.Module:
    """The base as a model that writes text, whatever the task. Raises Refused for a model that cannot."""
    kind = "AutoModelForSeq2SeqLM" if source.config.is_encoder_decoder else "AutoModelForCausalLM"
    model, report = _read(source, checked_head(kind, source.config, "generate"), dtype, device, 0, {})
    if report["missing_keys"]:
        raise Refused(f"{source.given} has no language model's head ({sorted(report['missing_keys'])[0]} is missing).")
    prepare_padding(source.tokenizer, model)
    return model


def _read(
    source: Source, auto: str, dtype: Precision, device: str, seed: int, options: dict[str, Any]
) -> tuple[Any, dict[str, Any]]:
    """The model by an Auto class, on the device, in evaluation mode, and transformers' report of what was missing.

    Raises Refused where the checkpoint has nothing for the most of the model: a random base is no base.
    """
    target = chosen_device(device)
    options = {**options, "dtype": torch.bfloat16 if in_bf16(dtype, target) else torch.float32}
    model, report = _from_pretrained(source, auto, seed, options)
    if renamed := _renamed(model, report):
        model, report = _from_pretrained(source, auto, seed, {**options, "key_mapping": renamed})
    if _missing_share(model, report) > 0.5:
        missing = sorted(report["missing_keys"])
        raise Refused(
            f"{source.given}: its checkpoint has no weights for {len(missing)} tensors of {type(model).__name__} "
            f"({missing[0]}, ...), so most of the base would be random. Choose a checkpoint of this architecture."
        )
    return model.to(target).eval(), report


def _from_pretrained(source: Source, auto: str, seed: int, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    import transformers

    torch.manual_seed(seed)
    with _quietly():
        try:
            return getattr(transformers, auto).from_pretrained(
                source.place, trust_remote_code=source.trust_remote_code, use_safetensors=True,
                output_loading_info=True, ignore_mismatched_sizes=True, **options,
            )  # fmt: skip
        except (OSError, ValueError, RuntimeError) as error:
            raise BadInput(f"{source.given}: the weights do not load. {sentence(error)}") from error


def _missing_share(model: nn.Module, report: dict[str, Any]) -> float:
    sizes = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    return sum(sizes.get(name, 0) for name in report["missing_keys"]) / max(sum(sizes.values()), 1)


def _renamed(model: nn.Module, report: dict[str, Any]) -> dict[str, str]:
    """Some heads hold the same body under another name (`transformer.` for `model.`), which transformers reads as
    missing: the change of prefix under which it is all there, or nothing."""
    missing, left = set(report["missing_keys"]), set(report["unexpected_keys"])
    body = type(model).base_model_prefix  # type: ignore[attr-defined]
    wanted = {name.removeprefix(f"{body}.") for name in missing if name.startswith(f"{body}.")}
    for prefix in {name.partition(".")[0] for name in left} - {body}:
        if wanted and wanted <= {name.removeprefix(f"{prefix}.") for name in left if name.startswith(f"{prefix}.")}:
            return {rf"^{prefix}\.": f"{body}."}
    return {}


def kept_with(adapter: str | Path) -> dict[str, Any]:
    """What `graft tune` kept with an adapter (task, data, seed, scores); nothing for one in PEFT's format."""
    place = checkpoint.locate(adapter)
    return dict(checkpoint.read(place).extra) if native(place) else {}


def in_bf16(dtype: Precision, device: torch.device) -> bool:
    """Whether weights and arithmetic are in bfloat16. Raises Refused when asked for on a GPU without it."""
    able = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    if dtype == "bf16" and device.type == "cuda" and not able:
        raise Refused("this GPU has no bfloat16: use --dtype fp32.")
    return dtype == "bf16" or (dtype == "auto" and able)


def fast_bf16(device: torch.device) -> bool:
    """Whether this is a CPU with instructions for bfloat16, which about halve the time of a training step."""
    return device.type == "cpu" and any(torch.cpu.get_capabilities().get(f"{kind}_bf16") for kind in ("avx512", "amx"))


def chosen_device(name: str) -> torch.device:
    """The device called `name`; "auto" is a GPU where there is one. Raises BadInput for one that is not here."""
    if name == "auto":
        return torch.device(
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadInput(f"--device {name}: no device is called so. Use auto, cpu, cuda, cuda:1 or mps.") from error
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if not there.get(device.type, False) or (device.index or 0) >= max(torch.cuda.device_count(), 1):
        raise BadInput(f"--device {name} is not here; `graft doctor` lists what is.")
    return device


def _trusted(place: str) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=bool(place))
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{place}: no usable configuration. {sentence(error)}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' bar and report while loading: what they say is in `fresh` and `notes`."""
    from transformers.utils import logging

    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()
