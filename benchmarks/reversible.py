"""What a reversible base saves and costs: MEFT 1/2/3 beside LoRA, plain and with checkpointing.

    python -m benchmarks.reversible                                  a small model on a CPU, a minute
    python -m benchmarks.reversible --width 768 --rows 32 --tokens 512 --device cuda     BERT-base on a GPU

A BERT with random weights, in training mode with its dropout. `kept` is what a forward leaves for its backward, counted
by autograd; `peak` the most that a step takes on a GPU above what it began with; the time is the median of 5 steps, the
methods taking turns, after one that is not counted. "refused": the backward said that it did not get the
activations back.
"""

import argparse
import sys
import time
from dataclasses import dataclass, field
from statistics import median

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM

import graft
from graft.attach.recompute import checkpoint_activations
from graft.errors import Refused
from graft.memory import kept_bytes
from graft.method import Method

STEPS, VOCABULARY, MEGA = 5, 1000, 2**20


@dataclass
class Contestant:
    """One way of training, on a model of its own."""

    name: str
    method: Method
    checkpointing: bool = False
    model: nn.Module = field(default_factory=nn.Module)
    kept: int = 0
    peaks: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    refused: bool = False

    def ready(self, config: BertConfig, device: torch.device, half: bool, batch: dict[str, Tensor]) -> None:
        """Make the model, and count what a forward keeps."""
        torch.manual_seed(0)
        self.model = BertForMaskedLM(config).to(device, torch.bfloat16 if half else torch.float32)
        adapter = graft.attach(self.model, self.method, head=False)
        checkpoint_activations(self.model, self.checkpointing)
        self.model.train()
        self.optimizer = torch.optim.SGD(adapter.parameters(), lr=1e-3)
        self.kept = kept_bytes(lambda: self.model.base_model(**batch))

    def step(self, batch: dict[str, Tensor]) -> None:
        """One step of training, measured."""
        device = next(self.model.parameters()).device
        on_gpu = device.type == "cuda"
        if on_gpu:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
        start = time.perf_counter()
        try:
            self.model.base_model(**batch)[0].float().square().mean().backward()
        except Refused:
            self.refused = True
            return
        self.optimizer.step()
        self.optimizer.zero_grad()
        if on_gpu:
            torch.cuda.synchronize()
            self.peaks.append(torch.cuda.max_memory_allocated() - before)
        self.seconds.append(time.perf_counter() - start)

    def row(self) -> str:
        """A row of the table; the first step does not count."""
        peak = f"{median(self.peaks[1:]) / MEGA:,.1f}" if self.peaks else "–"
        spent = "refused" if self.refused else f"{1000 * median(self.seconds[1:]):,.0f}"
        return f"| {self.name} | {self.kept / MEGA:,.1f} | {peak} | {spent} |"


def main(arguments: list[str] | None = None) -> int:
    """Measure, and print one table for each depth."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reversible", description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[6, 12], help="depths of the model")
    parser.add_argument("--width", type=int, default=256, help="width of the model, a multiple of 64")
    parser.add_argument("--rows", type=int, default=8, help="rows of a batch")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a row")
    parser.add_argument("--device", default="cpu", help="where: cpu or cuda")
    parser.add_argument("--half", action="store_true", help="weights of the base in bfloat16")
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    ids = torch.randint(1, VOCABULARY, (given.rows, given.tokens), generator=torch.Generator().manual_seed(0))
    batch = {"input_ids": ids.to(device)}
    for layers in given.layers:
        config = BertConfig(
            vocab_size=VOCABULARY, hidden_size=given.width, num_hidden_layers=layers,
            num_attention_heads=given.width // 64, intermediate_size=4 * given.width,
        )  # fmt: skip
        contestants = [
            Contestant("LoRA r=8, q v", graft.LoRA(rank=8)),
            Contestant("the same, checkpointed", graft.LoRA(rank=8), checkpointing=True),
            *(Contestant(f"MEFT {n}", graft.MEFT(variant=n)) for n in (1, 2, 3)),
            *(Contestant(f"MEFT {n}, exact=False", graft.MEFT(variant=n, exact=False)) for n in (1, 2, 3)),
        ]
        for each in contestants if not given.half else contestants[:5]:
            each.ready(config, device, given.half, batch)
        for _ in range(STEPS + 1):
            for each in contestants if not given.half else contestants[:5]:
                each.step(batch)
        size = f"{layers} layers of width {given.width}, {given.rows} rows of {given.tokens} tokens, {given.device}"
        print(f"\n{size}\n\n| | kept, MiB | peak, MiB | ms a step |\n|---|---|---|---|")
        print("\n".join(each.row() for each in contestants if each.kept), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
