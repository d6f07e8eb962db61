"""Short names of bases and data sets, for titles."""

import re

from graft.data.splits import SPLITS

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt")
SAYS_NOTHING = (*SPLITS, "model")  # as the name of a file or folder; the folder around it says more


def title(place: str) -> str:
    """A short name for a folder, a file, a Hugging Face id, or files given as `train=…,test=…`."""
    parts = re.split(r"[/\\]", place.partition(",")[0].rpartition("=")[2].rstrip("/\\"))
    name = parts[-1]
    for ending in ENDINGS:
        name = name.removesuffix(ending)
    return parts[-2] if name in SAYS_NOTHING and len(parts) > 1 and parts[-2] else name or place
