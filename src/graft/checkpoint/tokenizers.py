"""What is kept of a tokenizer: its own files, and hashes of what decides how text becomes ids and chats become text."""

import hashlib
import json
from pathlib import Path
from typing import Any


def tokenizer_hashes(tokenizer: Any) -> dict[str, str]:
    """SHA-256 of the tokenizer (vocabulary, merges, normalization, added tokens) and of its chat template."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # Truncation and padding are settings of the last call, not of the tokenizer.
        state = {k: v for k, v in json.loads(backend.to_str()).items() if k not in ("truncation", "padding")}
    else:
        state = {"class": type(tokenizer).__name__, "vocabulary": tokenizer.get_vocab()}
    template = getattr(tokenizer, "chat_template", None)
    return {
        "sha256": _hash(json.dumps(state, sort_keys=True)),
        "chat_template_sha256": _hash(json.dumps(template, sort_keys=True)) if template else "",
    }


def save_tokenizer(tokenizer: Any, folder: Path) -> dict[str, str]:
    """Write the tokenizer's files into an adapter's folder; its hashes."""
    tokenizer.save_pretrained(folder)
    return tokenizer_hashes(tokenizer)


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
