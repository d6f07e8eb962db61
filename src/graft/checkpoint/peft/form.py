"""What the mappings of all methods share: names, tasks, and what one of them gives to the writer and the reader."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from graft.anatomy import Anatomy
from graft.attach import Adapter
from graft.checkpoint.safe import Entry
from graft.method import Method

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
# What PEFT puts before the path of a module: methods inside modules, methods in front of the model.
INSIDE = "base_model.model."
BEFORE = "base_model."

Values = Callable[[Adapter, Mapping[str, Tensor]], dict[str, Tensor]]


@dataclass(frozen=True)
class Written:
    """One method in PEFT's format: the settings of its configuration, its tensors, and the prefix of module names."""

    settings: dict[str, Any]
    tensors: dict[str, Tensor]
    prefix: str = INSIDE


@dataclass(frozen=True)
class Plan:
    """How to read one PEFT checkpoint: the method, what the file must hold, and graft's tensors made from it."""

    method: Method
    expected: dict[str, Entry]
    values: Values
    prefix: str = INSIDE


def task(model: nn.Module, anatomy: Anatomy) -> str | None:
    """PEFT's name for what the model does, or None where it has none."""
    name, config = type(model).__name__, model.config
    for ending, found in (
        ("ForSequenceClassification", "SEQ_CLS"),
        ("ForTokenClassification", "TOKEN_CLS"),
        ("ForQuestionAnswering", "QUESTION_ANS"),
    ):
        if name.endswith(ending):
            return found
    if getattr(model, "main_input_name", "") != "input_ids":
        return None
    if model.can_generate():  # type: ignore[operator]
        return "SEQ_2_SEQ_LM" if config.is_encoder_decoder else "CAUSAL_LM"  # type: ignore[union-attr]
    return "FEATURE_EXTRACTION" if anatomy.head is None else None
