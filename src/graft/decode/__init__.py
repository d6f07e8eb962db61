"""Decoding: text written by a model, by an adapter, or by both side by side, streamed as it comes."""

from graft.decode.prompts import prompted, read_prompts, typed
from graft.decode.speaker import Speaker
from graft.decode.writing import Writing, write

__all__ = ["Speaker", "Writing", "prompted", "read_prompts", "typed", "write"]
