"""Published model sizes as models without weights, for the tests of methods."""

import functools
from typing import Any

import transformers
from torch import nn

from graft.anatomy import skeleton
from graft.attach import Counts, attach, detach
from graft.method import Method

LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "num_labels": 2}
T5 = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_layers": 12, "num_decoder_layers": 12, "num_heads": 12}
FLAN = {**T5, "d_ff": 2048, "feed_forward_proj": "gated-gelu"}
LM_ADAPTED = {"num_layers": 24, "num_decoder_layers": 24, "d_kv": 64, "feed_forward_proj": "gated-gelu"}
WAV2VEC = {**LARGE, "num_labels": 11, "classifier_proj_size": 256, "do_stable_layer_norm": True,
           "feat_extract_norm": "layer", "conv_bias": True}  # fmt: skip


def gpt(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {"n_embd": width, "n_layer": layers, "n_head": heads}


def llama(width: int, layers: int, inner: int, heads: int, key_heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width, "num_hidden_layers": layers, "intermediate_size": inner, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "vocab_size": 32000,
    }  # fmt: skip


def deberta(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": 4 * width, "vocab_size": 128100, "relative_attention": True,
    }  # fmt: skip


TOTAL_T5 = 222_903_552  # parameters of T5-base, what its percentages are of

# name: (class, configuration)
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-base": ("BertForSequenceClassification", {"num_labels": 2}),
    "bert-large": ("BertForSequenceClassification", {**LARGE, "num_labels": 2}),
    "roberta-base": ("RobertaForSequenceClassification", ROBERTA),
    "roberta-large": ("RobertaForSequenceClassification", {**ROBERTA, **LARGE}),
    "hubert-base": ("HubertModel", {}),
    "wav2vec2-large": ("Wav2Vec2ForSequenceClassification", WAV2VEC),
    "deberta-v3-base": ("DebertaV2Model", deberta(768, 12, 12)),
    "deberta-xxl": ("DebertaV2Model", deberta(1536, 48, 24)),
    "gpt2": ("GPT2LMHeadModel", gpt(768, 12, 12)),
    "gpt2-medium": ("GPT2LMHeadModel", gpt(1024, 24, 16)),
    "gpt2-large": ("GPT2LMHeadModel", gpt(1280, 36, 20)),
    "gpt3": ("GPT2LMHeadModel", gpt(12288, 96, 96)),
    "llama-7b": ("LlamaForCausalLM", llama(4096, 32, 11008, 32, 32)),
    "llama-13b": ("LlamaForCausalLM", llama(5120, 40, 13824, 40, 40)),
    "llama-33b": ("LlamaForCausalLM", llama(6656, 60, 17920, 52, 52)),
    "llama-65b": ("LlamaForCausalLM", llama(8192, 80, 22016, 64, 64)),
    "llama2-70b": ("LlamaForCausalLM", llama(8192, 80, 28672, 64, 8)),
    "bart-large": ("BartForConditionalGeneration", {}),
    "t5-base": ("T5ForConditionalGeneration", T5),
    "codet5-base": ("T5ForConditionalGeneration", {**T5, "vocab_size": 32100}),
    "flan-t5-base": ("T5ForConditionalGeneration", FLAN),
    "t0-3b": ("T5ForConditionalGeneration", {**LM_ADAPTED, "d_model": 2048, "d_ff": 5120, "num_heads": 32}),
    "t0-11b": ("T5ForConditionalGeneration", {**LM_ADAPTED, "d_model": 4096, "d_ff": 10240, "num_heads": 64}),
}


@functools.cache
def sized(name: str) -> nn.Module:
    """The model of a published size, without weights."""
    architecture, settings = SIZES[name]
    config_class = getattr(transformers, architecture).config_class
    return skeleton(config_class(**settings, architectures=[architecture]))


def counts(name: str, method: Method) -> Counts:
    """What the method costs on a model of that size."""
    model = sized(name)
    adapter = attach(model, method)
    try:
        return adapter.counts
    finally:
        detach(model)
