"""Training a tokenizer on text: byte-level BPE, WordPiece or Unigram, through `tokenizers`."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from graft.errors import BadInput

Kind = Literal["bpe", "wordpiece", "unigram"]
END, PAD = "<|end|>", "<|pad|>"
MODES = ("[R]", "[S]", "[X]")
SENTINELS = 100


def train_tokenizer(
    texts: Iterable[str], kind: Kind = "bpe", vocabulary: int = 8192, denoising: bool = False, positions: int = 512
) -> PreTrainedTokenizerFast:
    """Train a tokenizer of exactly `vocabulary` entries, special tokens included.

    bpe: byte-level, loses nothing (Sennrich et al. 2016; Radford et al. 2019). wordpiece: BERT's, lower-cased, with
    [CLS] and [SEP]. unigram: Kudo 2018 with SentencePiece's ▁ for spaces. denoising: adds T5's 100 sentinels and UL2's
    mode tokens. positions: the longest sequence, stored as `model_max_length`.
    Raises BadInput when the text has too few distinct pieces for the vocabulary, or the vocabulary too few entries.
    """
    named: dict[str, Any] = dict(_named(kind))
    special = list(dict.fromkeys(named.values())) + (_denoising_tokens() if denoising else [])
    least = len(special) + (256 if kind == "bpe" else 100)
    if vocabulary < least:
        raise BadInput(
            f"vocabulary {vocabulary} is too small for {kind}: "
            f"at least {least} ({len(special)} special tokens and an alphabet)."
        )
    tokenizer, trainer = _untrained(kind, vocabulary, special)
    tokenizer.train_from_iterator(texts, trainer)
    made = tokenizer.get_vocab_size()
    if made < vocabulary:
        raise BadInput(
            f"vocabulary {vocabulary} is too large for this text: it has {made} distinct {kind} pieces. "
            f"Give --vocabulary {made} or more text."
        )
    if kind == "wordpiece":
        ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
        )
        named["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=positions, clean_up_tokenization_spaces=False, **named
    )


def load_tokenizer(folder: str | Path) -> Any:
    """A tokenizer from a local folder. Raises BadInput when there is none."""
    from transformers import AutoTokenizer

    if not (Path(folder) / "tokenizer_config.json").is_file():
        raise BadInput(f"{folder} has no tokenizer_config.json. Give a folder that a tokenizer was saved in.")
    return AutoTokenizer.from_pretrained(folder)


def sentinels(tokenizer: Any) -> list[int]:
    """The ids of `<extra_id_0>`, `<extra_id_1>` ...: as many as the tokenizer has, in order."""
    known = tokenizer.get_vocab()
    found = [known.get(f"<extra_id_{n}>") for n in range(SENTINELS)]
    return [token for token in found if token is not None]


def _named(kind: Kind) -> dict[str, str]:
    if kind == "wordpiece":
        return {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        }
    if kind == "unigram":
        return {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}
    return {"eos_token": END, "bos_token": END, "pad_token": PAD}


def _denoising_tokens() -> list[str]:
    return [f"<extra_id_{n}>" for n in range(SENTINELS)] + list(MODES)


def _untrained(kind: Kind, vocabulary: int, special: list[str]) -> tuple[Tokenizer, Any]:
    if kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece()
        return tokenizer, trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        return tokenizer, trainers.UnigramTrainer(
            vocab_size=vocabulary, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return tokenizer, trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
