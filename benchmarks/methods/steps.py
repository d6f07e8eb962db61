"""How long a training step of each method takes over one of LoRA's: in turns in one process, median of the pairs."""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

import graft
from benchmarks.acceptance.material import minilm
from graft.errors import BadInput, Refused
from graft.files import write_text
from graft.method import named

PAIRS, WARM, ROWS, LENGTH = 9, 2, 16, 24


class Trained:
    """MiniLM with one adapter, and a batch that it trains on."""

    def __init__(self, method: str) -> None:
        torch.manual_seed(0)
        self.model = AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=6)
        ids = torch.randint(1000, 20000, (ROWS, LENGTH))
        self.batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.arange(ROWS) % 6}
        self.adapter = graft.attach(self.model, named(method))
        for term, parts in self.adapter.terms():
            term.prepare(self.model, [self.batch], parts)
        self.optimizer = torch.optim.AdamW(self.adapter.parameters(), lr=1e-4)
        self.model.train()

    def step(self) -> float:
        """Seconds of one step."""
        begin = time.perf_counter()
        self.optimizer.zero_grad()
        self.model(**self.batch).loss.backward()
        self.optimizer.step()
        return time.perf_counter() - begin


def measure(file: Path, methods: Sequence[str]) -> int:
    """Add the methods that are not in the file yet: the median ratio, and the quarters of the ratios."""
    torch.set_num_threads(1)
    found = json.loads(file.read_text()) if file.is_file() else {}
    lora = Trained("lora")
    for name in methods:
        if name in found:
            continue
        try:
            other = Trained(name)
        except (BadInput, Refused) as error:
            print(f"{name}: {error}")
            continue
        ratios = [other.step() / lora.step() for _ in range(WARM + PAIRS)][WARM:]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[name] = {"ratio": middle, "low": low, "high": high}
        print(f"{name:20} {middle:.2f} ({low:.2f} to {high:.2f})")
        write_text(file, json.dumps(found, indent=1))
    return 0
