"""A bidirectional LSTM (Hochreiter and Schmidhuber 1997; Graves and Schmidhuber 2005) trained on the rows alone.

Its vocabulary is the train rows' words that occur at least twice; texts are read in lower case, a pair one after the
other. Labels and numbers are read from the maximum over positions (Conneau et al. 2017, arXiv 1705.02364), tags from
every word. Adam; the tensors of the epoch with the lowest validation loss are kept.
"""

import copy
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from graft.data.padding import IGNORED
from graft.data.rows import Row
from graft.data.task import Record, Task
from graft.data.tasks.classification import Classification
from graft.data.tasks.regression import Regression
from graft.data.tasks.tagging import Tagging
from graft.tournament.entrant import Answerer, Arena, Entrant

WORD = re.compile(r"\w+|[^\w\s]")
PADDING, UNKNOWN, NEXT = 0, 1, 2  # NEXT stands between two texts
AT_ONCE = 128  # rows answered in one forward


@dataclass(frozen=True)
class LSTM(Entrant):
    """A small bidirectional LSTM from scratch. No base, no pretraining."""

    hidden: Annotated[int, "width of the state in each direction"] = 128
    embedding: Annotated[int, "width of a word's vector"] = 100
    layers: Annotated[int, "layers, one above the other"] = 1
    dropout: Annotated[float, "dropout on the words' vectors and before the output, in training"] = 0.3
    lr: Annotated[float, "learning rate of Adam"] = 3e-3
    epochs: Annotated[int, "passes over the train rows at most"] = 20
    patience: Annotated[int, "epochs without a lower validation loss after which training stops"] = 3
    batch: Annotated[int, "rows in one step"] = 32

    search: ClassVar = {"lr": (3e-3, 1e-3, 1e-2, 3e-4)}

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(1, "hidden", "embedding", "layers", "epochs", "patience", "batch")
        self.check(0 <= self.dropout < 1, "dropout", "must be at least 0 and below 1", "Try 0.3.")
        self.check(self.lr > 0, "lr", "must be above 0", "Try 0.003.")

    def refuses(self, arena: Arena) -> str | None:
        if isinstance(arena.task, Classification | Regression | Tagging):
            return None
        return f"lstm reads texts and gives labels, numbers or tags, which is no answer to {arena.task.kind}."

    def fit(self, arena: Arena, rows: Sequence[Row], seed: int) -> Answerer:
        device = next(arena.model.parameters()).device
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            reader = Reader(arena.task, rows)
            network = Network(self, len(reader.words) + 3, reader.outputs, isinstance(arena.task, Tagging)).to(device)
            _train(self, network, reader, rows, arena.held_back(len(rows)))
        return Trained(network, reader)


class Reader:
    """Rows as numbers: `ids` of words, `target` of an answer. `outputs`: how many numbers an answer is read from."""

    def __init__(self, task: Task, rows: Sequence[Row]) -> None:
        self.task = task
        counts = Counter(word for row in rows for text in _texts(row) for word in text)
        self.words = {word: at for at, word in enumerate(sorted(w for w, c in counts.items() if c > 1), NEXT + 1)}
        self.outputs = 1 if isinstance(task, Regression) else len(task.known())

    def ids(self, row: Row) -> Tensor:
        """The words of a row, at least one."""
        read: list[int] = []
        for text in _texts(row):
            read += [*([NEXT] if read else []), *(self.words.get(word, UNKNOWN) for word in text)]
        return torch.tensor(read[: self.task.max_length] or [UNKNOWN])

    def target(self, row: Row) -> Tensor:
        """What the network should give: a label's number, a number, or a tag's number for each word."""
        if isinstance(self.task, Regression):
            return torch.tensor((float(row["label"]) - self.task.mean) / self.task.spread)
        number = {name: at for at, name in enumerate(self.task.known())}
        if isinstance(self.task, Tagging):
            return torch.tensor([number.get(tag, IGNORED) for tag in row["tags"]][: self.task.max_length] or [IGNORED])
        return torch.tensor(number.get(row["label"], IGNORED))

    def loss(self, found: Tensor, rows: Sequence[Row]) -> Tensor:
        """The sum over rows, or over words where each has a tag."""
        targets = [self.target(row) for row in rows]
        if isinstance(self.task, Regression):
            return mse_loss(found[:, 0], torch.stack(targets).to(found.device), reduction="sum")
        wanted = pad_sequence(targets, True, IGNORED) if targets[0].dim() else torch.stack(targets)
        wanted = wanted.to(found.device)
        return cross_entropy(found.flatten(0, -2), wanted.flatten(), reduction="sum", ignore_index=IGNORED)


class Network(nn.Module):
    """Ids of words to outputs, for the text or, `each`, for every word."""

    def __init__(self, settings: LSTM, words: int, outputs: int, each: bool) -> None:
        super().__init__()
        self.each = each
        self.embedding = nn.Embedding(words, settings.embedding, padding_idx=PADDING)
        self.lstm = nn.LSTM(
            settings.embedding, settings.hidden, settings.layers, batch_first=True, bidirectional=True,
            dropout=settings.dropout if settings.layers > 1 else 0.0,
        )  # fmt: skip
        self.dropout = nn.Dropout(settings.dropout)
        self.output = nn.Linear(2 * settings.hidden, outputs)

    def forward(self, rows: Sequence[Tensor]) -> Tensor:
        """[rows, outputs], or [rows, words, outputs]."""
        lengths = torch.tensor([len(row) for row in rows])
        ids = pad_sequence(list(rows), True, PADDING).to(self.output.weight.device)
        packed = pack_padded_sequence(self.dropout(self.embedding(ids)), lengths, True, enforce_sorted=False)
        states, _ = pad_packed_sequence(self.lstm(packed)[0], True, -math.inf if not self.each else 0.0)
        return self.output(self.dropout(states if self.each else states.max(dim=1).values))


class Trained(Answerer):
    """Answers by the network."""

    def __init__(self, network: Network, reader: Reader) -> None:
        sizes = [parameter.numel() * parameter.element_size() for parameter in network.parameters()]
        words = sum(len(word.encode()) + 1 for word in reader.words)
        super().__init__(sum(p.numel() for p in network.parameters()), sum(sizes) + words)
        self.network, self.reader, self.task = network.eval(), reader, reader.task

    @torch.no_grad()
    def answer(self, rows: Sequence[Row]) -> list[Record]:
        records: list[Record] = []
        for at in range(0, len(rows), AT_ONCE):
            part = rows[at : at + AT_ONCE]
            found = self.network([self.reader.ids(row) for row in part]).cpu()
            records += [{"item": at + n, **self._given(row, found[n])} for n, row in enumerate(part)]
        return records

    def _given(self, row: Row, found: Tensor) -> Record:
        task = self.task
        if isinstance(task, Regression):
            return {"output": found[0].item() * task.spread + task.mean}
        if isinstance(task, Tagging):
            tags = [task.tags[best] for best in found.argmax(dim=-1).tolist()[: len(row["tokens"])]]
            return {"output": tags + [task.outside] * (len(row["tokens"]) - len(tags))}
        return {"output": task.known()[int(found.argmax())], "probabilities": found.double().softmax(dim=-1).tolist()}


def _train(settings: LSTM, network: Network, reader: Reader, rows: Sequence[Row], held: Sequence[Row]) -> None:
    optimizer = torch.optim.Adam(network.parameters(), settings.lr)
    ids, checks = [reader.ids(row) for row in rows], [reader.ids(row) for row in held]
    best: tuple[float, Any] = (math.inf, None)
    worse = 0
    for _ in range(settings.epochs):
        network.train()
        order = torch.randperm(len(rows)).tolist()
        for at in range(0, len(rows), settings.batch):
            part = order[at : at + settings.batch]
            optimizer.zero_grad()
            loss = reader.loss(network([ids[n] for n in part]), [rows[n] for n in part]) / len(part)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
        if not held:
            continue
        measured = _measured(network, reader, checks, held)
        worse = 0 if measured < best[0] else worse + 1
        if worse == 0:
            best = measured, copy.deepcopy(network.state_dict())
        elif worse >= settings.patience:
            break
    if best[1] is not None:
        network.load_state_dict(best[1])


@torch.no_grad()
def _measured(network: Network, reader: Reader, ids: Sequence[Tensor], rows: Sequence[Row]) -> float:
    network.eval()
    parts = [slice(at, at + AT_ONCE) for at in range(0, len(rows), AT_ONCE)]
    return sum(reader.loss(network(ids[part]), rows[part]).item() for part in parts)


def _texts(row: Row) -> list[list[str]]:
    """The words of each text of a row; a row of words as it stands."""
    if "tokens" in row:
        return [[word.lower() for word in row["tokens"]]]
    return [WORD.findall(row[name].lower()) for name in ("text", "text_pair") if name in row]
