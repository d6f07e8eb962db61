"""Everything a run needs, tiny and made on the spot: a tokenizer of whole words, base models on disk, rows on disk."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ANIMALS = ["cat", "dog", "bird", "fish", "horse", "cow"]
PLANTS = ["oak", "rose", "fern", "moss", "lily", "pine"]
PLACES = ["field", "river", "garden", "hill"]
WORDS = [*ANIMALS, *PLANTS, *PLACES, *["a", "the", "in", "by", "sees", "near", "kind", "animal", "plant", "is"]]
SIZE = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip


def tokenizer() -> Any:
    """Whole words, [CLS] and [SEP] around a text, an end token, padding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[END]"]
    words = {word: number for number, word in enumerate([*special, *WORDS, *".:\n"])}
    made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.Fuse()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    made.decoder = decoders.WordPiece(prefix="##")
    return PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="[END]", model_max_length=64,
    )  # fmt: skip


def base(folder: Path, kind: str = "bert", **settings: Any) -> Path:
    """A random base model with its tokenizer in `folder`/KIND, seeded: "bert" without a head, "llama" or "t5"."""
    import torch
    import transformers

    made = tokenizer()
    ids = {"vocab_size": len(made), "pad_token_id": 0, "eos_token_id": made.eos_token_id, "bos_token_id": None}
    sizes: dict[str, Any] = {
        "bert": SIZE, "llama": {**SIZE, "num_key_value_heads": 1},
        "t5": {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 0,
               "dropout_rate": 0.0},
    }[kind]  # fmt: skip
    auto = {"bert": "AutoModel", "llama": "AutoModelForCausalLM", "t5": "AutoModelForSeq2SeqLM"}[kind]
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[kind](**sizes, **ids, **settings)
    model = getattr(transformers, auto).from_config(config)
    model.save_pretrained(folder / kind)
    made.save_pretrained(folder / kind)
    return folder / kind


def sentences(count: int, seed: int) -> list[tuple[str, str]]:
    """Different lists of animals or of plants, each with which it is."""
    draw = random.Random(seed)
    found: dict[str, str] = {}
    while len(found) < count:
        kind = draw.choice(["animal", "plant"])
        things = draw.choices(ANIMALS if kind == "animal" else PLANTS, k=draw.randint(3, 8))
        found[f"{' '.join(things)} in the {draw.choice(PLACES)}"] = kind
    return list(found.items())


def classes(folder: Path, sizes: Sequence[int] = (64, 24, 24)) -> Path:
    """Classification rows in `folder`/classes: train, validation and test."""
    return _write(folder / "classes", sizes, lambda text, kind: {"text": text, "label": kind})


def answers(folder: Path, sizes: Sequence[int] = (64, 24, 24)) -> Path:
    """Generation rows in `folder`/answers: prompt and completion."""
    return _write(folder / "answers", sizes, lambda text, kind: {"prompt": text, "completion": f"kind : {kind}"})


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a .jsonl file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(folder: Path, sizes: Sequence[int], row: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    found = sentences(sum(sizes), seed=1)
    for split, size in zip(("train", "validation", "test"), sizes, strict=True):
        part, found = found[:size], found[size:]
        lines = "".join(json.dumps(row(text, kind)) + "\n" for text, kind in part)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")
    return folder


def study_of(home: Path, kind: str = "bert", rows: str = "classes", still: bool = False) -> Any:
    """A study of the base and the rows in `home`: the same model, bit for bit, every time; `still`: without dropout."""
    import torch

    from graft import data
    from graft.loading import find_base, load_base
    from graft.training.tuning import Study

    found = data.load(home / rows)
    source = find_base(home / kind)
    task: Any = data.fit(found, source.tokenizer, source.config, 32)
    made = load_base(source, task, device="cpu")
    for module in made.model.modules():
        if still and isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return Study(made.model, made.tokenizer, task, found.train, found.validation, found.test, made.fresh)
