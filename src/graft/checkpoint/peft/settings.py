"""Reading adapter_config.json: what is understood, what may be ignored, and that everything else is refused by name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graft.checkpoint.safe import inside, listed, read_json
from graft.errors import BadInput, Refused

# Where the adapter came from and how it began: without effect on what it does.
FREE = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision", "task_type",
    "fan_in_fan_out", "megatron_core", "eva_config", "corda_config", "lora_ga_config", "qalora_group_size",
    "runtime_config", "init_ia3_weights", "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path",
    "tokenizer_kwargs",
    "init_weights", "encoder_hidden_size", "encoder_num_layers", "encoder_dropout",
    "encoder_reparameterization_type", "prefix_projection", "token_dim", "num_attention_heads",
}  # fmt: skip
MODULES = {"target_modules", "exclude_modules", "modules_to_save"}
VIRTUAL = {"num_virtual_tokens", "num_transformer_submodules", "num_layers", "modules_to_save"}
LAYERS = {"layers_to_transform", "layers_pattern"}
READ = {
    "LORA": MODULES | {
        "r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "bias", "init_lora_weights", "rank_pattern",
        "alpha_pattern", "layers_to_transform", "layers_pattern",
    },
    "IA3": MODULES | {"feedforward_modules"},
    "LOHA": MODULES | LAYERS | {"r", "alpha", "rank_pattern", "alpha_pattern", "use_effective_conv2d"},
    "LOKR": MODULES | LAYERS | {
        "r", "alpha", "rank_pattern", "alpha_pattern", "use_effective_conv2d", "decompose_both", "decompose_factor",
        "rank_dropout_scale",
    },
    "HRA": MODULES | LAYERS | {"r", "apply_GS", "bias"},
    "OFT": MODULES | LAYERS | {
        "r", "oft_block_size", "block_share", "use_cayley_neumann", "num_cayley_neumann_terms", "eps", "bias",
    },
    "VERA": MODULES | LAYERS | {"r", "projection_prng_key", "save_projection", "vera_dropout", "d_initial", "bias"},
    "FOURIERFT": MODULES | LAYERS | {"n_frequency", "n_frequency_pattern", "scaling", "random_loc_seed", "bias"},
    "LN_TUNING": MODULES,
    "PROMPT_TUNING": VIRTUAL,
    "PREFIX_TUNING": VIRTUAL,
    "P_TUNING": VIRTUAL,
    "ADALORA": MODULES | LAYERS | {
        "r", "init_r", "target_r", "lora_alpha", "lora_dropout", "total_step", "tinit", "tfinal", "deltaT", "beta1",
        "beta2", "orth_reg_weight", "rank_pattern", "bias", "init_lora_weights",
    },
    "ADAPTION_PROMPT": {"adapter_len", "adapter_layers", "target_modules"},
}  # fmt: skip
SWITCHES = {"apply_GS", "block_share", "decompose_both", "save_projection", "use_cayley_neumann"}
# Ways to begin that leave the base as it is; the others begin by changing it.
STARTS = (True, False, "gaussian", "eva", "orthogonal", None)


def read(folder: Path) -> dict[str, Any]:
    """The configuration of a PEFT checkpoint. Raises Refused, naming it, for everything graft would not do the same."""
    path = inside(folder, "adapter_config.json")
    assert path is not None
    config = read_json(path)
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in READ:
        raise Refused(f"{path}: PEFT's {kind!r:.60} is not read by graft; it reads {', '.join(READ)}.")
    unknown = [
        f"{key}={value!r:.60}"
        for key, value in config.items()
        if key not in READ[kind] | FREE and value not in (None, False, "", [], {})
    ]
    if "bias" in READ[kind] and config.get("bias", "none") != "none":
        unknown.append(f"bias={config['bias']!r:.40}")
    if kind == "LORA":
        start = config.get("init_lora_weights", True)
        if not any(start is known or (isinstance(start, str) and start == known) for known in STARTS):
            unknown.append(
                f"init_lora_weights={start!r:.40} (it changes the base before training; save it with PEFT's "
                "path_initial_model_for_weight_conversion)"
            )
    if unknown:
        raise Refused(f"{path}: graft does not do what PEFT does with {listed(unknown)}. Use PEFT for this adapter.")
    _types(path, config)
    return config


def _types(path: Path, config: Mapping[str, Any]) -> None:
    """Refuse settings of another type than PEFT writes."""
    for key in ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern", "feedforward_modules"):
        value = config.get(key)
        if value is not None and not isinstance(value, str) and not _strings(value):
            raise BadInput(f"{path}: {key}={value!r:.80} is neither a name nor a list of names.")
    for key in ("rank_pattern", "alpha_pattern", "n_frequency_pattern"):
        if not isinstance(config.get(key) or {}, dict):
            raise BadInput(f"{path}: {key}={config[key]!r:.80} is no map from names to numbers.")
    for key in SWITCHES & config.keys():
        if type(config[key]) is not bool:
            raise BadInput(f"{path}: {key}={config[key]!r:.80} is neither true nor false.")
    indices = config.get("layers_to_transform")
    if indices is not None and type(indices) is not int and not (
        isinstance(indices, list) and all(type(index) is int for index in indices)
    ):  # fmt: skip
        raise BadInput(f"{path}: layers_to_transform={indices!r:.80} is neither a number nor a list of numbers.")
    dropout = config.get("lora_dropout") or 0.0
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise BadInput(f"{path}: lora_dropout={dropout!r:.40} is no number from 0 to 1.")


def _strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)
