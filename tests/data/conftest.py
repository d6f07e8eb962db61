"""Tiny tokenizers made on the spot, one of each family, and tiny random models with their vocabulary."""

import copy
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest

TEXTS = [
    "the cat sat on the mat . a dog ran to the park and saw a bird .",
    "How many apples does Anna have? She has 12 red apples & 3 green ones!",
    "def f(x): return x + 1  # adds one, naïve café über straße 東京 🙂",
    "Translate to French: hello world. Answer yes or no: is it good or bad?",
    "User: hi\nAssistant: good day to you\nSystem: be kind\n",
] * 3


def wordpiece() -> Any:
    """Like BERT: lower case, [CLS] and [SEP] around, token types."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(show_progress=False, vocab_size=300, special_tokens=special)
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=64,
    )  # fmt: skip


def byte_level() -> Any:
    """Like GPT-2: any text makes the round trip, one special token, no padding, nothing put around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        show_progress=False, vocab_size=400, special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    made.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|end|>", model_max_length=64)


def metaspace() -> Any:
    """Like Llama: words begin with a visible space, unknown characters are bytes, <s> before every text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = [f"<0x{byte:02X}>" for byte in range(256)]
    made = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    trainer = trainers.BpeTrainer(show_progress=False, vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *pieces])
    made.train_from_iterator(TEXTS, trainer)
    # The pieces for single bytes had to be in the vocabulary; special tokens they are not.
    stored = json.loads(made.to_str())
    stored["added_tokens"] = stored["added_tokens"][:3]
    made = Tokenizer.from_str(json.dumps(stored))
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<unk>",
        model_max_length=64, padding_side="left",
    )  # fmt: skip


def unigram() -> Any:
    """Like T5: </s> after every text, <pad> first."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.Unigram())
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(show_progress=False, vocab_size=150, special_tokens=special, unk_token="<unk>")
    made.train_from_iterator(TEXTS, trainer)
    made.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )


MAKERS: dict[str, Callable[[], Any]] = {
    "wordpiece": wordpiece, "byte_level": byte_level, "metaspace": metaspace, "unigram": unigram,
}  # fmt: skip


@functools.cache
def made(family: str) -> Any:
    """A tokenizer of this family, made once."""
    return MAKERS[family]()


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Any]:
    """`shared("byte_level")`: the one tokenizer of this family, not to be changed."""
    return made


@pytest.fixture(scope="session")
def tokenizer() -> Callable[[str], Any]:
    """`tokenizer("byte_level")`: a copy, for tests that set its padding token or chat template."""
    return lambda family: copy.deepcopy(made(family))


def model_of(auto: str, kind: str, tokenizer: Any, **options: Any) -> Any:
    """A tiny random model: `model_of("AutoModelForCausalLM", "gpt2", tokenizer)`."""
    import transformers

    size: dict[str, Any] = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64, "intermediate_size": 24,
    }  # fmt: skip
    shapes: dict[str, dict[str, Any]] = {
        "bert": size,
        "llama": {**size, "num_key_value_heads": 1},
        "gpt2": {"vocab_size": len(tokenizer), "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
        "t5": {"vocab_size": len(tokenizer), "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2,
               "decoder_start_token_id": 0},
        "bart": {"vocab_size": len(tokenizer), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
                 "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 24,
                 "decoder_ffn_dim": 24, "max_position_embeddings": 64, "decoder_start_token_id": 1,
                 "forced_eos_token_id": None},
    }  # fmt: skip
    ids = {
        "bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    config = transformers.CONFIG_MAPPING[kind](**shapes[kind], **ids)
    for name, value in options.items():
        setattr(config, name, value)
    return getattr(transformers, auto).from_config(config).eval()


@pytest.fixture(scope="session")
def model() -> Callable[..., Any]:
    """`model("AutoModelForCausalLM", "gpt2", tokenizer, **config_options)`."""
    return model_of
