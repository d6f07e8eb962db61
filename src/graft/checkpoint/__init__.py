"""Adapters on disk: graft's own folders, and Hugging Face PEFT's format."""

from graft.checkpoint.bare import save_base
from graft.checkpoint.fingerprint import Fingerprint, fingerprint
from graft.checkpoint.native import load, read, save
from graft.checkpoint.peft import export
from graft.checkpoint.record import Record
from graft.checkpoint.source import locate
from graft.checkpoint.tokenizers import tokenizer_hashes

__all__ = [
    "Fingerprint",
    "Record",
    "export",
    "fingerprint",
    "load",
    "locate",
    "read",
    "save",
    "save_base",
    "tokenizer_hashes",
]
