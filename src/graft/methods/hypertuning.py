"""HyperTuning (Phang et al. 2023, arXiv 2211.12485): a small network reads examples of a task and writes its adapter.

    C = Transformer([Q; E[x₁]; …; E[x_K]])_Q,   [P_k; P_v]_l = MLP_l(C)   or   [A_l; B_lᵀ] = MLP_l(C)

K rows of a task, with their answers, pass the base's frozen embeddings E and a transformer that trains; what it makes
of n learned queries Q becomes, by an MLP for each site, n keys and values or the n ranks of a LoRA. In training K rows
are drawn anew for each task and step from the first `pool` training rows of the task; evaluated and stored, they are
its first K. No gradient step is needed for another task: `graft.Frozen("default", examples=(ids, …))` is an ordinary
prefix or LoRA adapter for any examples, `graft.Frozen("default", task="qa")` one for those of a task.

A LoRA starts as the base, since MLP_l gives B = 0; a prefix does not. Departures: the paper reads by a whole
LM-adapted T5, trained on long text before (hyper-pretraining); here embeddings and a transformer from scratch do it, so
less is to be expected of tasks unlike those trained on. A row may be among the examples that are read for it. Examples
are cut to `length` tokens, their beginning. The reading is done at every site: freeze what is to be fast.
"""

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from graft.anatomy.site import Site
from graft.errors import BadInput, Refused
from graft.method import Method, Part, check, kaiming, named, normal, positive, zeros

if TYPE_CHECKING:
    from graft.attach.call import Call

SITES = {"prefix": "attention", "lora": "q v"}
NONE = -1  # in place of a token


class Block(Part):
    """One layer of the transformer, its norms first."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        w, self.heads = width, heads
        self.g_1, self.h_1, self.g_2, self.h_2 = (
            nn.Parameter(torch.ones(w)),
            zeros(w),
            nn.Parameter(torch.ones(w)),
            zeros(w),
        )
        self.W_qkv, self.b_qkv, self.W_o, self.b_o = kaiming(3 * w, w), zeros(3 * w), kaiming(w, w), zeros(w)
        self.W_1, self.b_1, self.W_2, self.b_2 = kaiming(2 * w, w), zeros(2 * w), kaiming(w, 2 * w), zeros(w)

    def run(self, x: Tensor, seen: Tensor) -> Tensor:
        """(n, width) → (n, width), looking at what is `seen`, (1, n)."""
        qkv = F.linear(F.layer_norm(x, x.shape[-1:], self.g_1, self.h_1), self.W_qkv, self.b_qkv)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(1, 2, 0, 3)
        mixed = F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=seen)[0]
        x = x + F.linear(mixed.transpose(0, 1).flatten(1), self.W_o, self.b_o)
        inner = F.gelu(F.linear(F.layer_norm(x, x.shape[-1:], self.g_2, self.h_2), self.W_1, self.b_1))
        return x + F.linear(inner, self.W_2, self.b_2)


class Reader(Part):
    """What reads examples, and the examples of each task: token ids (tasks, rows, length), −1 where there is none."""

    def __init__(self, site: Site, owner: "HyperTuning") -> None:
        super().__init__()
        w, self.owner, self.table = owner.width, owner, (site.module,)  # in a tuple: the base's, and no part's child
        self.W_in, self.b_in, self.queries = kaiming(w, site.outputs), zeros(w), normal(owner.queries, w, std=1.0)
        self.blocks = nn.ModuleList(Block(w, owner.heads) for _ in range(owner.depth))
        self.gain, self.shift = nn.Parameter(torch.ones(w)), zeros(w)
        self.ids: Tensor
        self.register_buffer("ids", torch.zeros(max(len(owner.tasks), 1), 0, 0, dtype=torch.long))
        self.drawn: list[list[int]] = []

    def keep(self, rows: Sequence[Sequence[Sequence[int]]]) -> None:
        """Keep rows of token ids for each task."""
        self.ids = table_of(rows, self.owner.length).to(self.ids.device)

    def draw(self, step: int) -> None:
        """Choose the rows to read while training."""
        draws = torch.Generator().manual_seed(step)
        there = (self.ids[..., :1] >= 0).sum((1, 2)).tolist()
        self.drawn = [torch.randperm(n, generator=draws)[: self.owner.examples].tolist() for n in there]

    def code(self, task: int) -> Tensor:
        """(queries, width): what it makes of the examples of a task."""
        if self.training and self.drawn:
            return self.read(self.ids[task, self.drawn[task]])
        return self.read(self.ids[task, : self.owner.examples])

    def read(self, ids: Tensor) -> Tensor:
        """(queries, width) of examples (rows, length)."""
        table, flat = self.table[0].weight, ids.flatten()
        with torch.no_grad():
            known = F.embedding(flat.clamp(min=0).to(table.device), table).to(self.W_in)
            known = F.layer_norm(known, known.shape[-1:])
        places = _places(ids.shape[1], len(self.b_in)).to(self.W_in).repeat(len(ids), 1)
        x = torch.cat((self.queries, F.linear(known, self.W_in, self.b_in) + places))
        seen = torch.cat((torch.ones_like(self.queries[:, 0], dtype=torch.bool), flat >= 0))[None]
        for block in self.blocks:
            x = block.run(x, seen)  # type: ignore[operator]
        return F.layer_norm(x[: len(self.queries)], x.shape[-1:], self.gain, self.shift)

    def stored(self) -> "Reader":
        """With the rows alone that are read when it does not train."""
        part = copy.copy(self)
        part.__dict__["_buffers"] = {"ids": self.ids[:, : self.owner.examples]}
        return part

    def resize(self, shapes: Mapping[str, Sequence[int]]) -> None:
        if "ids" in shapes:
            self.ids = self.ids.new_full(tuple(shapes["ids"]), NONE)


class Writer(Part):
    """An MLP that makes of each query's state a row of what a site gets."""

    def __init__(self, reader: Reader, outputs: int, bias: Tensor) -> None:
        super().__init__()
        w = len(reader.b_in)
        self.borrow(reader)
        self.tasks = reader.owner.tasks
        self.W_1, self.b_1 = kaiming(w, w), zeros(w)
        self.W_2, self.b_2 = normal(outputs, w, std=0.02), nn.Parameter(bias)

    def rows(self, code: Tensor) -> Tensor:
        """(queries, outputs)."""
        return F.linear(F.gelu(F.linear(code.to(self.W_1.dtype), self.W_1, self.b_1)), self.W_2, self.b_2)


class PrefixWriter(Writer):
    """Keys and values of one attention, for each task."""

    def __init__(self, reader: Reader, site: Site) -> None:
        assert site.heads is not None
        self_heads = (site.heads.key, site.heads.width)
        outputs = 2 * site.heads.key * site.heads.width
        super().__init__(reader, outputs, normal(outputs, std=0.02).data)
        self.heads, self.length = self_heads, reader.owner.queries

    def keys_values(self, site: Site, call: "Call") -> tuple[Tensor, Tensor, Tensor | None]:
        rows = len(call.tasks) if isinstance(call.tasks, tuple) else 1
        found = call.by_task(self.tasks, rows, self.b_1.device)
        pairs = torch.stack([self.pair(self.lent[0].code(task)) for task, _ in found])
        if found[0][1] is None:
            return pairs[0, 0], pairs[0, 1], None
        number = torch.zeros(rows, dtype=torch.long, device=pairs.device)
        for index, (_, own) in enumerate(found):
            number = number.index_fill(0, own, index)  # type: ignore[arg-type]
        return pairs[number, 0], pairs[number, 1], None

    def pair(self, code: Tensor) -> Tensor:
        """(2, n, key heads, width)."""
        return self.rows(code).unflatten(-1, (2, *self.heads)).movedim(1, 0)

    def tensors(self, code: Tensor) -> dict[str, Tensor]:
        """What is left when the examples are."""
        return dict(zip(("keys", "values"), self.pair(code), strict=True))


class LowRankWriter(Writer):
    """A and B of one linear map, for each task."""

    def __init__(self, reader: Reader, site: Site) -> None:
        self.inputs: int
        bound = site.inputs**-0.5
        start = torch.cat((torch.empty(site.inputs).uniform_(-bound, bound), torch.zeros(site.outputs)))
        super().__init__(reader, site.inputs + site.outputs, start)
        self.matrix(site, looked_up=False).low_rank(site, reader.owner.rank)
        self.W_2.data[site.inputs :] = 0.0
        self.inputs, self.scale = site.inputs, reader.owner.alpha / reader.owner.rank

    def after(self, x: Tensor, y: Tensor, site: Site, call: "Call") -> Tensor:
        for task, rows in call.by_task(self.tasks, len(y), y.device):
            own = self.tensors(self.lent[0].code(task))
            low = F.linear(x if rows is None else x[rows], own["A"].to(x.dtype))
            added = self.scale * F.linear(low, own["B"].to(x.dtype)).to(y.dtype)
            y = y + added if rows is None else y.index_add(0, rows, added)
        return y

    def tensors(self, code: Tensor) -> dict[str, Tensor]:
        """What is left when the examples are."""
        A, B = self.rows(code).split((self.inputs, len(self.b_2) - self.inputs), -1)
        return {"A": A, "B": B.T}


@dataclass(frozen=True)
class HyperTuning(Method):
    """A network that reads examples of a task and writes a prefix or a LoRA for it; new tasks need no training."""

    tasks: Annotated[tuple[str, ...], "names of the tasks; in training those of the rows, where none are given"] = ()
    emits: Annotated[Literal["prefix", "lora"], "what it writes"] = "prefix"
    examples: Annotated[int, "rows that are read"] = 4
    pool: Annotated[int, "training rows of each task from which these are drawn"] = 64
    length: Annotated[int, "tokens of a row that are read"] = 64
    tokens: Annotated[int, "prefix: number of virtual keys"] = 16
    rank: Annotated[int, "lora: width of the update"] = 8
    alpha: Annotated[float, "lora: the update is scaled by alpha/rank"] = 16.0
    width: Annotated[int, "of the network that reads"] = 64
    depth: Annotated[int, "its layers"] = 2
    heads: Annotated[int, "its attention heads"] = 4
    sites: Annotated[str | None, "where what is written goes; none: attention, for lora q v"] = None

    family: ClassVar[str] = "hybrid"
    learning_rate: ClassVar[float] = 5e-3
    start: ClassVar[Literal["exact", "near", "elsewhere"]] = "elsewhere"
    needs_tasks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        positive(self, "examples", "pool", "length", "tokens", "rank", "width", "depth", "heads")
        check(self.alpha != 0, self, "alpha", "must not be 0, which would leave the base as it is", "Try 16.")
        heads, fewest = self.heads, self.examples
        more = f"Try {max(64 // heads, 1) * heads}."
        check(self.width % heads == 0, self, "width", f"must be a multiple of heads={heads}", more)
        check(self.pool >= fewest, self, "pool", f"must be at least examples={fewest}", f"Try {fewest}.")
        check(len(set(self.tasks)) == len(self.tasks), self, "tasks", "must differ", "Name each once.")
        if self.emits == "lora":
            object.__setattr__(self, "start", "exact")
            object.__setattr__(self, "learning_rate", 1e-3)

    @property
    def queries(self) -> int:
        """How many queries there are: one for each virtual key, or rank."""
        return self.tokens if self.emits == "prefix" else self.rank

    def expression(self) -> str:
        return f"embed; {self._goal()}"

    def grow(self, sites: Sequence[Site]) -> list[tuple[Site | None, Part]]:
        if all(site.role == "embed" for site in sites):
            raise BadInput(f"HyperTuning: sites={self.sites!r} is where it reads. Name where what it writes goes.")
        reader = Reader(_embed(sites), self)
        kind = PrefixWriter if self.emits == "prefix" else LowRankWriter
        return [(None, reader), *((site, kind(reader, site)) for site in sites if site.role != "embed")]

    def prepare(self, model: nn.Module, batches: Iterable[Mapping[str, Any]], parts: Sequence[Part]) -> None:
        joint = bool(model.config.is_encoder_decoder)  # type: ignore[union-attr]
        rows: list[list[list[int]]] = [[] for _ in range(max(len(self.tasks), 1))]
        for batch in batches:
            for name, ids in zip(
                batch.get("tasks") or [None] * len(batch["input_ids"]), texts(batch, joint), strict=True
            ):
                of = rows[self.tasks.index(name) if self.tasks else 0]
                if len(of) < self.pool:
                    of.append(ids)
            if all(len(of) == self.pool for of in rows):
                break
        for part in parts:
            if isinstance(part, Reader):
                part.keep(rows)

    def during(
        self, phase: Literal["forward", "loss", "gradients", "stepped"], step: int, parts: Sequence[Part]
    ) -> Tensor | None:
        for part in parts if phase == "forward" else ():
            if isinstance(part, Reader):
                part.draw(step)
        return None

    def deployed(self, parts: Mapping[str, Part]) -> Mapping[str, Part]:
        return {key: part.stored() if isinstance(part, Reader) else part for key, part in parts.items()}

    def frozen(
        self, parts: Mapping[str, Part], task: str | None, examples: Sequence[Sequence[int]]
    ) -> tuple[Method, Mapping[str, Tensor]]:
        reader = next(part for part in parts.values() if isinstance(part, Reader))
        given = reader.ids[self.tasks.index(task) if task in self.tasks else 0, : self.examples]
        code = reader.read(table_of([examples], self.length)[0].to(given.device) if examples else given)
        sizes = {"tokens": self.tokens} if self.emits == "prefix" else {"rank": self.rank, "alpha": self.alpha}
        name = "prefix_tuning" if self.emits == "prefix" else "lora"
        written = (
            (key, part.tensors(code)) for key, part in parts.items() if isinstance(part, PrefixWriter | LowRankWriter)
        )
        found = {f"{key}.{name}": tensor for key, own in written for name, tensor in own.items()}
        return named(name, {name: {**sizes, "sites": self._goal()}}), found

    def sizes(self) -> tuple[str, ...]:
        return ("width",)

    def count(self, sites: Sequence[Site]) -> int:
        w = self.width
        reader = w * (_embed(sites).outputs + 1) + self.queries * w + self.depth * (8 * w * w + 11 * w) + 2 * w
        return reader + sum((w + 1) * (w + self._outputs(site)) for site in sites if site.role != "embed")

    def _outputs(self, site: Site) -> int:
        if self.emits == "lora":
            return site.inputs + site.outputs
        heads = site.key_heads()
        return 2 * heads.key * heads.width

    def _goal(self) -> str:
        return SITES[self.emits] if self.sites is None else self.sites


def table_of(rows: Sequence[Sequence[Sequence[int]]], length: int) -> Tensor:
    """(tasks, rows, tokens) from the ids of each row of each task, no more than `length` of them."""
    longest = max((len(ids[:length]) for of in rows for ids in of), default=0)
    table = torch.full((len(rows), max(map(len, rows)), longest), NONE)
    for task, of in enumerate(rows):
        for number, ids in enumerate(of):
            table[task, number, : len(ids[:length])] = torch.tensor(ids[:length], dtype=torch.long)
    return table


def _embed(sites: Sequence[Site]) -> Site:
    return next(site for site in sites if site.role == "embed")


def _places(length: int, width: int) -> Tensor:
    """(length, width): the sines and cosines of Vaswani et al. 2017."""
    turns = torch.arange(length)[:, None] * torch.exp(torch.arange(0, width, 2) * (-9.21 / width))
    return torch.stack((turns.sin(), turns.cos()), -1).flatten(1)[:, :width]


def texts(batch: Mapping[str, Any], joint: bool) -> list[list[int]]:
    """The tokens of each row with its answer: of an encoder-decoder's, the decoder's behind the encoder's."""
    ids, mask, labels = batch["input_ids"], batch["attention_mask"].bool(), batch.get("labels")
    if isinstance(labels, Tensor) and labels.dim() == ids.dim() == 2:
        texts: list[list[int]] = [row[own].tolist() for row, own in zip(ids, mask, strict=True)]
        if joint:
            return [text + row[row >= 0].tolist() for text, row in zip(texts, labels, strict=True)]
        if bool((labels == ids)[labels >= 0].all()):
            return texts
    raise Refused(
        "HyperTuning reads rows with their answers as text, and the labels of this task are none. Pose it as text: "
        "--task generation with a --template, or for a causal model --task verbalized."
    )
