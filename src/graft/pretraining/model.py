"""A fresh model from any transformers configuration, sized to a tokenizer and fit for an objective."""

import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

from graft.errors import BadInput, Refused
from graft.pretraining.batches import Shape, prefix_mask
from graft.pretraining.objectives import Marks, Objective
from graft.pretraining.tokenizer import MODES, sentinels


def configure(source: str | Path, overrides: Mapping[str, Any], tokenizer: Any = None) -> PretrainedConfig:
    """A configuration from a config.json, a folder with one, or a model type ("llama"), with fields overridden.

    The vocabulary and the special ids come from the tokenizer, when it is there.
    Raises BadInput for an unknown type or field.
    """
    path = Path(source)
    path = path / "config.json" if path.is_dir() else path
    if path.is_file():
        fields = json.loads(path.read_text(encoding="utf-8"))
        kind = fields.pop("model_type", None)
        fields = {
            name: value
            for name, value in fields.items()
            if name not in ("architectures", "torch_dtype", "dtype", "transformers_version")
        }
    else:
        kind, fields = str(source), {}
    if kind not in CONFIG_MAPPING_NAMES:
        near = difflib.get_close_matches(str(kind), CONFIG_MAPPING_NAMES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BadInput(f"config {str(source)!r}: no such file and no model type of that name{hint}.")
    known = AutoConfig.for_model(kind).to_dict()
    unknown = [name for name in overrides if name not in known]
    if unknown:
        hints = {name: difflib.get_close_matches(name, known, 1) for name in unknown}
        raise BadInput(
            "; ".join(
                f"{kind} has no field {n!r}" + (f", did you mean {h[0]!r}?" if h else "") for n, h in hints.items()
            )
        )
    fields |= overrides
    if tokenizer is not None:
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        fields |= {"vocab_size": len(tokenizer), **ids}
        if AutoConfig.for_model(kind).is_encoder_decoder:
            fields["decoder_start_token_id"] = tokenizer.pad_token_id
    return AutoConfig.for_model(kind, **fields)


def shape_of(config: PretrainedConfig, objective: Objective) -> Shape:
    """How the model reads an example. Raises BadInput when this architecture has no class for the objective."""
    kind = config.model_type
    if objective == "masked":
        names, shape = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES, "encoder"
    elif config.is_encoder_decoder:
        names, shape = modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES, "encoder-decoder"
    else:
        names, shape = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, "decoder"
    if kind not in names or (objective == "causal" and shape == "encoder-decoder"):
        raise BadInput(
            f"objective {objective!r} does not fit {kind}. "
            "Masked: encoders; causal: decoders; the others: decoders and encoder-decoders."
        )
    return shape  # type: ignore[return-value]


def build(config: PretrainedConfig, shape: Shape, attention: str, seed: int) -> PreTrainedModel:
    """A randomly initialized fp32 model; the same seed gives the same weights. BadInput when fields clash."""
    heads = {"encoder": "MaskedLM", "decoder": "CausalLM", "encoder-decoder": "Seq2SeqLM"}
    made = getattr(transformers, f"AutoModelFor{heads[shape]}")
    torch.manual_seed(seed)
    try:
        return made.from_config(config, dtype=torch.float32, attn_implementation=attention)
    except (ValueError, RuntimeError, TypeError, ZeroDivisionError) as error:
        raise BadInput(f"{config.model_type} cannot be built with these fields: {error}") from error


def marks_of(tokenizer: Any, objective: Objective) -> Marks:
    """The special ids of a tokenizer. Raises BadInput when the objective needs some it lacks."""
    known, found = tokenizer.get_vocab(), tuple(sentinels(tokenizer))
    modes = tuple(known[mode] for mode in MODES if mode in known)
    lacking = []
    if objective == "masked" and tokenizer.mask_token_id is None:
        lacking.append("a mask token")
    if objective in ("span", "mixture") and not found:
        lacking.append("sentinels <extra_id_0> ...")
    if objective == "mixture" and len(modes) != len(MODES):
        lacking.append(f"the mode tokens {' '.join(MODES)}")
    if lacking:
        raise BadInput(
            f"objective {objective!r} needs {' and '.join(lacking)} in the tokenizer. Let graft train one, or add them."
        )
    special = frozenset(tokenizer.all_special_ids) | frozenset(found) | frozenset(modes)
    start, end, mask = tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.mask_token_id
    return Marks(len(tokenizer), start, end, mask, special, found, modes)


def probe_prefix(model: PreTrainedModel, length: int, vocabulary: int) -> None:
    """Raises Refused when the model ignores a mask that lets the source be read in both directions."""
    ids = torch.from_numpy(np.random.default_rng(0).integers(0, vocabulary, (1, min(length, 8))))
    other = ids.clone()
    other[0, 3] = (other[0, 3] + 1) % vocabulary
    mask = prefix_mask([4], ids.shape[1]).to(model.device)
    model.eval()
    with torch.no_grad():
        first, second = (model(input_ids=x.to(model.device), attention_mask=mask).logits[0, 0] for x in (ids, other))
    model.train()
    if torch.equal(first, second):
        raise Refused(
            f"{model.config.model_type} does not read a source in both directions (it ignores 4-D masks). "
            "Use the objective causal, or an encoder-decoder."
        )
