"""Tiny models of every architecture graft knows: random, seeded, fp32, built from configurations and never downloaded.

`tiny("llama")` builds one, `batch(model)` gives it two rows of different length, `NAMES` lists them all.
"""

import copy
import functools
import inspect
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING, PretrainedConfig, PreTrainedModel

VOCABULARY = 96
LENGTHS = (9, 6)
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "vocab_size": VOCABULARY}
ROWS = {"max_position_embeddings": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
ENCODER = IDS | ROWS | {"intermediate_size": 48}
DECODER = ENCODER | {"num_key_value_heads": 2}
SEQ2SEQ = IDS | {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64, "decoder_start_token_id": 3,
}  # fmt: skip
T5 = IDS | {
    "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "decoder_start_token_id": 0,
}  # fmt: skip
MOE = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
FALCON = IDS | {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": False}

# name: (transformers' own name of the configuration, its settings)
ZOO: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("bert", ENCODER),
    "roberta": ("roberta", ENCODER | {"pad_token_id": 1, "bos_token_id": 0, "type_vocab_size": 1}),
    "distilbert": ("distilbert", IDS | {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4,
                                        "max_position_embeddings": 64}),
    "electra": ("electra", ENCODER | {"embedding_size": 16}),
    "albert": ("albert", ENCODER | {"embedding_size": 16, "num_hidden_layers": 3}),
    "deberta_v2": ("deberta-v2", ENCODER | {"relative_attention": True, "pos_att_type": ["c2p", "p2c"],
                                            "max_relative_positions": 16, "position_buckets": 8,
                                            "norm_rel_ebd": "layer_norm", "share_att_key": True,
                                            "position_biased_input": False, "type_vocab_size": 0}),
    "modernbert": ("modernbert", ENCODER | {"num_hidden_layers": 3, "local_attention": 6,
                                            "cls_token_id": 1, "sep_token_id": 2, "reference_compile": False}),
    "gpt2": ("gpt2", IDS | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_inner": 48, "n_positions": 64}),
    "gpt_neox": ("gpt_neox", ENCODER | {"rotary_pct": 0.5}),
    "opt": ("opt", IDS | ROWS | {"ffn_dim": 48, "word_embed_proj_dim": 32}),
    "bloom": ("bloom", IDS | {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    "falcon": ("falcon", FALCON | {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon_multi_query": ("falcon", FALCON | {"new_decoder_architecture": False, "multi_query": True}),
    "falcon_multi_head": ("falcon", FALCON | {"new_decoder_architecture": False, "multi_query": False, "alibi": True,
                                              "bias": True, "parallel_attn": False}),
    "llama": ("llama", DECODER),
    "mistral": ("mistral", DECODER | {"sliding_window": 6}),
    "qwen2": ("qwen2", DECODER),
    "qwen3": ("qwen3", DECODER | {"head_dim": 8}),
    "gemma2": ("gemma2", DECODER | {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}),
    "gemma3": ("gemma3_text", DECODER | {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8,
                                         "layer_types": ["sliding_attention", "full_attention"]}),
    "phi3": ("phi3", DECODER),
    "olmo2": ("olmo2", DECODER),
    "mixtral": ("mixtral", DECODER | MOE),
    "qwen3_moe": ("qwen3_moe", DECODER | MOE | {"head_dim": 8, "mlp_only_layers": [], "decoder_sparse_step": 1}),
    "gpt_oss": ("gpt_oss", DECODER | MOE | {"head_dim": 8, "sliding_window": 6,
                                            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}),
    "t5": ("t5", T5 | {"feed_forward_proj": "relu"}),
    "flan_t5": ("t5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "bart": ("bart", SEQ2SEQ | {"forced_eos_token_id": None, "forced_bos_token_id": None}),
    "pegasus": ("pegasus", SEQ2SEQ | {"forced_eos_token_id": None}),
    "vit": ("vit", ROWS | {"intermediate_size": 48, "image_size": 16, "patch_size": 8}),
    "whisper": ("whisper", SEQ2SEQ | {"num_mel_bins": 8, "max_source_positions": 16, "max_target_positions": 64,
                                      "suppress_tokens": [], "begin_suppress_tokens": []}),
    "wav2vec2": ("wav2vec2", ENCODER | {"conv_dim": (16, 16), "conv_stride": (4, 4), "conv_kernel": (8, 4),
                                        "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8,
                                        "num_conv_pos_embedding_groups": 2, "apply_spec_augment": False}),
}  # fmt: skip
NAMES = tuple(ZOO)
TEXT = tuple(name for name in NAMES if name not in ("vit", "whisper", "wav2vec2"))

TASKS = {
    "lm": ("Seq2SeqLM", "SpeechSeq2Seq", "CausalLM", "MaskedLM", "CTC", "ImageClassification"),
    "classification": ("SequenceClassification", "ImageClassification", "AudioClassification"),
    "tagging": ("TokenClassification",),
    "answers": ("QuestionAnswering",),
    "base": ("",),
}
# Encoders of text that transformers also offers as causal models.
MASKED = {"bert", "roberta", "electra"}


@functools.cache
def _settled(name: str) -> PretrainedConfig:
    kind, settings = ZOO[name]
    kind_of_config = CONFIG_MAPPING[kind]
    known = inspect.signature(kind_of_config.__init__).parameters.keys() | vars(kind_of_config()).keys()
    known |= {"decoder_start_token_id", "norm_rel_ebd", "forced_eos_token_id", *IDS, *kind_of_config.attribute_map}
    config = kind_of_config(**{key: value for key, value in settings.items() if key in known})
    config.num_labels = 2
    for key, value in vars(config).items():
        if ("drop" in key or key.startswith("mask_")) and isinstance(value, float):
            setattr(config, key, 0.0)
    return config


def config(name: str, task: str = "lm", **changes: Any) -> PretrainedConfig:
    """A fresh configuration of the tiny model `name`, naming the class it is built with; `changes` override it."""
    made = copy.deepcopy(_settled(name))
    for key, value in changes.items():
        setattr(made, key, value)
    made.architectures = [_class(name, made, task).__name__]
    return made


def _class(name: str, made: PretrainedConfig, task: str) -> type[PreTrainedModel]:
    for suffix in TASKS[task]:
        if suffix == "CausalLM" and name in MASKED:
            continue
        auto = getattr(transformers, f"AutoModelFor{suffix}" if suffix else "AutoModel")
        if type(made) in auto._model_mapping:
            found = auto._model_mapping[type(made)]
            return found[0] if isinstance(found, tuple) else found
    raise LookupError(f"transformers has no {name} model for {task}")


def tiny(name: str, task: str = "lm", dropout: float = 0.0, seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A tiny random model in eval mode; `task` is one of TASKS, `dropout` goes to every dropout it has."""
    made = config(name, task, **changes)
    for key, value in vars(made).items():
        if "drop" in key and "layer" not in key and isinstance(value, float):
            setattr(made, key, dropout)
    torch.manual_seed(seed)
    model = _class(name, made, task)(made)
    draws = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # Weights wide enough that every part of the model matters; gains and biases off their trivial values.
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=draws)
            parameter.copy_(0.25 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
    return model.eval()


def batch(model: PreTrainedModel, left_padding: bool = False, seed: int = 0) -> dict[str, Tensor]:
    """Two rows of different length for `model`: text, image or sound, with the decoder's input where there is one.

    Every text row ends in one end token and holds no other special token before its padding.
    """
    draws = torch.Generator().manual_seed(seed)
    settings = model.config
    rows = len(LENGTHS)
    if model.main_input_name == "pixel_values":
        size = settings.image_size
        return {"pixel_values": torch.randn(rows, settings.num_channels, size, size, generator=draws)}
    if model.main_input_name == "input_values":
        return {"input_values": torch.randn(rows, 400, generator=draws)}
    text = _text(settings, left_padding, draws)
    if model.main_input_name == "input_features":
        frames = 2 * settings.max_source_positions
        sound = {"input_features": torch.randn(rows, settings.num_mel_bins, frames, generator=draws)}
        if "decoder_input_ids" not in inspect.signature(model.forward).parameters:
            return sound
        return sound | {"decoder_input_ids": text["input_ids"], "decoder_attention_mask": text["attention_mask"]}
    if settings.is_encoder_decoder and not type(model).__name__.endswith(("Classification", "Answering")):
        start = torch.full((rows, 1), settings.decoder_start_token_id)
        drawn = torch.randint(5, settings.vocab_size, (rows, 6), generator=draws)
        return text | {"decoder_input_ids": torch.cat((start, drawn), 1)}
    return text


def _text(settings: PretrainedConfig, left_padding: bool, draws: torch.Generator) -> dict[str, Tensor]:
    shape = (len(LENGTHS), max(LENGTHS))
    ids = torch.randint(5, settings.vocab_size, shape, generator=draws)
    mask = torch.ones(shape, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        ids[row, length - 1] = settings.eos_token_id
        ids[row, length:] = settings.pad_token_id
        mask[row, length:] = 0
        if left_padding:
            ids[row], mask[row] = ids[row].roll(shape[1] - length), mask[row].roll(shape[1] - length)
    return {"input_ids": ids, "attention_mask": mask}


def forward(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> Tensor:
    """The model's first output (logits, or hidden states of a bare model)."""
    output = model(**inputs)
    return next(output[key] for key in ("logits", "last_hidden_state", "start_logits") if key in output)
