"""What one forward pass of one stack knows: made when it begins, never changed, kept by its checkpointed segments."""

import math
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from graft.anatomy.site import Site
from graft.attach.tokens import Insertion
from graft.errors import BadInput, Refused

Names = str | None | tuple[str | None, ...]
KeysValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Call:
    """One forward of one stack.

    names        the adapter in use, None for the base, or one of these for each row
    tasks        the task that rows belong to, one for all or one for each row, for adapters that know several
    stack        which stack, and whether it is `causal`: token t sees only tokens up to t
    tokens       how many of each row it runs on, virtual ones included
    mask         (batch, n) padding mask of the tokens the stack sees; None when nothing is padded
    memory_mask  the same of the encoder's output, in a decoder
    past, cache  number of tokens in the cache, and the cache object or None
    shift        how far virtual keys move the positions of real tokens: one number, or one for each row
    prefixes     keys and values computed from virtual tokens, by adapter and attention path
    harvest      filled with the keys and values of every attention while such a prefix is being computed
    deep         whether every layer reads its own virtual tokens then, instead of what the one before gave
    late         how many of `shift` come behind the embedding, where learned positions have been added already
    inserted     where virtual tokens stand among the real ones; `trims`: whether the outputs there are cut off
    captured     what passed earlier in this call; `narrowed`: the same, as the rows of one adapter see it
    embeds       each row's embeddings (batch, n, embedding width), for parts that make virtual tokens of them
    states       what the stack makes of each row without any adapter (batch, n, width), where such a part asks for it
    carried      what one layer leaves for the next, for parts that run layers in their own way
    kept         what one stack leaves for another, also from one forward to the next
    rows, batch  which rows, of how many, a narrowed call is about
    owner        which method of a sum, and which adapter inside another, the part that is told of the call is of
    """

    names: Names = None
    tasks: Names = None
    stack: str = ""
    causal: bool = False
    tokens: int = 0
    mask: Tensor | None = None
    memory_mask: Tensor | None = None
    past: Any = 0
    cache: Any = None
    shift: int | Tensor = 0
    prefixes: dict[str, dict[str, KeysValues]] = field(default_factory=dict)
    harvest: dict[str, KeysValues] | None = None
    deep: bool = False
    late: int | Tensor = 0
    inserted: Insertion | None = None
    trims: bool = True
    captured: dict[tuple[str, str], Tensor] = field(default_factory=dict)
    narrowed: dict[str, dict[tuple[str, str], Tensor]] = field(default_factory=dict)
    carried: dict[str, Any] = field(default_factory=dict)
    embeds: Tensor | None = None
    states: Tensor | None = None
    kept: dict[str, Tensor] = field(default_factory=dict)
    rows: Tensor | None = None
    batch: int = 0
    owner: str = ""

    def own(self, key: str) -> str:
        """The name of something that a part keeps in this call, apart from what other methods and adapters keep."""
        return f"{self.names}/{self.owner}/{key}"

    @property
    def mixed(self) -> bool:
        """Whether rows of the batch use different adapters."""
        return isinstance(self.names, tuple)

    def used(self) -> tuple[str, ...]:
        """The distinct adapters in use, in order of first appearance."""
        names = self.names if isinstance(self.names, tuple) else (self.names,)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    def per_row(self, size: int) -> tuple[str | None, ...]:
        """One name for each of `size` leading entries: rows repeat for beams and for flattened tokens."""
        return self._shared_out(self.names, size, "adapter")

    def _shared_out(self, names: Names, size: int, kind: str) -> tuple[str | None, ...]:
        if not isinstance(names, tuple):
            return (names,) * size
        times, rest = divmod(size, len(names))
        if rest:
            raise Refused(
                f"rows vanish inside the {self.stack or 'model'}: {size} cannot be shared out over {len(names)} "
                f"{kind} names. Use one {kind} for the whole batch."
            )
        return tuple(name for name in names for _ in range(times))

    def rows_of(self, name: str, size: int, device: torch.device) -> Tensor | None:
        """Indices of the leading entries that use `name`; None means all of them."""
        if not self.mixed:
            return None
        rows = [index for index, other in enumerate(self.per_row(size)) if other == name]
        return torch.tensor(rows, device=device)

    def by_task(self, known: tuple[str, ...], size: int, device: torch.device) -> list[tuple[int, Tensor | None]]:
        """The tasks of `size` leading entries: the number of each in `known`, and which entries are its; None: all.

        Where one task or none is known, everything is of it. Raises BadInput for no task and an unknown one.
        """
        if not known or (len(known) == 1 and self.tasks is None):
            return [(0, None)]
        names = self.tasks if isinstance(self.tasks, tuple) else (self.tasks,)
        if wrong := [name for name in names if name not in known]:
            seen = f"not {wrong[0]!r}" if wrong[0] is not None else "and none was named"
            raise BadInput(
                f"the adapter knows the tasks {', '.join(known)}, {seen}. Say which: graft.use(model, name, "
                f"tasks={known[0]!r}), or a list with one for each row; graft generate has --task {known[0]}."
            )
        if len(set(names)) == 1:
            return [(known.index(str(names[0])), None)]
        rows: dict[str | None, list[int]] = {}
        for index, name in enumerate(self._shared_out(names, size, "task")):
            rows.setdefault(name, []).append(index)
        return [(known.index(str(name)), torch.tensor(own, device=device)) for name, own in rows.items()]

    def tasks_of(self, name: str) -> Names:
        """The tasks of the rows that use the adapter `name`."""
        if not isinstance(self.names, tuple) or not isinstance(self.tasks, tuple):
            return self.tasks
        size = math.lcm(len(self.names), len(self.tasks))
        pairs = zip(self.per_row(size), self._shared_out(self.tasks, size, "task"), strict=True)
        return tuple(task for other, task in pairs if other == name)

    def extend(self, key: str, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """A part's own keys and values (batch, heads, n, width), with those of earlier tokens in front of them.

        They are kept as a further layer of the model's cache, so that beams reorder and crop them with the rest.
        Raises Refused for a cache with tokens of which this part saw nothing.
        """
        if self.cache is None:
            return keys, values
        cache, layer = getattr(self.cache, "self_attention_cache", self.cache), self.own(key)
        index = cache.__dict__.setdefault("_graft_layers", {})
        if layer not in index:
            if bool(self.past != 0):
                raise Refused(
                    f"the cache holds {int(self.past)} tokens and none of what the adapter keeps of them: it was made "
                    "inside the model, or without this adapter. Pass past_key_values=DynamicCache(config=model.config) "
                    "from the first call on."
                )
            index[layer] = len(cache.layers)
            cache.layers.append(DynamicLayer())
        own = cache.layers[index[layer]]
        if self.rows is None:
            return own.update(keys, values)
        whole = [t.new_zeros(self.batch, *t.shape[1:]).index_copy(0, self.rows, t) for t in (keys, values)]
        keys, values = own.update(*whole)
        return keys[self.rows], values[self.rows]

    def padding(self, size: int) -> Tensor | None:
        """(batch, past + size): which tokens seen so far are real, or None when all are."""
        if self.mask is None:
            return None
        return self.mask[:, : int(self.past) + size].bool()

    def mean(self, each: Tensor) -> Tensor:
        """(batch, n, width) of rows without virtual tokens → (batch, width): the mean over each row's real tokens."""
        if self.mask is None:
            return each.mean(1)
        share = self.mask.to(each.dtype)
        return torch.einsum("bn,bnd->bd", share, each) / share.sum(1, keepdim=True).clamp(min=1)

    def virtual(self) -> Tensor | None:
        """(batch or 1, n): which inputs are virtual tokens, or None without any among them."""
        if self.inserted is None:
            return None
        source, length = self.inserted.source, self.inserted.length
        size = 1 if source is None else len(source)
        device = None if self.mask is None else self.mask.device
        virtual = self.inserted.widen(torch.zeros(size, length, dtype=torch.bool, device=device), True)
        return virtual[self.rows] if self.rows is not None and size > 1 else virtual

    def apart(self) -> Tensor | None:
        """(batch or 1, 1, n, n): pairs of a virtual and a real token, or None without virtual ones among the inputs.

        With a cache virtual tokens are keys and values of the model's own attention and nothing else, so what attends
        by itself must not see them without one either.
        """
        virtual = self.virtual()
        return None if virtual is None else virtual[:, None, :, None] != virtual[:, None, None, :]

    def hidden(self, n: int, seen: int, device: torch.device, window: int | None = None) -> Tensor | None:
        """Which of the tokens seen so far the last n must not see, for what attends by itself; None: they see all.

        In a decoder the future, what is `window` or more tokens away, and padding other than themselves; broadcasts to
        (batch, 1, n, seen).
        """
        at = torch.arange(seen, device=device)
        distance = at[None] - at[seen - n :, None]
        padding = self.padding(n)
        hidden = distance > 0 if self.causal else None
        if window is not None:
            far = distance.abs() >= window
            hidden = far if hidden is None else hidden | far
        if padding is not None:
            padded = ~padding[:, None, None, :seen] & (distance != 0)
            hidden = padded if hidden is None else hidden | padded
        apart = self.apart()
        if apart is not None:
            apart = apart.to(device)
            hidden = apart if hidden is None else hidden | apart
        return hidden

    def places(self, size: int, device: torch.device) -> Tensor:
        """(batch or 1, size): each token's number among the real ones of its row; −1 at padding and virtual tokens."""
        real, virtual = self.padding(size), self.virtual()
        if real is None:
            real = torch.ones(1, int(self.past) + size, dtype=torch.bool, device=device)
        if virtual is not None:
            real = real & ~virtual.to(real.device)
        if self.harvest is not None:
            real = torch.zeros_like(real)
        return torch.where(real, real.cumsum(-1) - 1, -1)[:, -size:].to(device)

    def capture(self, point: str, site: Site, value: Tensor) -> None:
        """Keep what passed a site's `entry`, `residual` or `input` point until it is left."""
        self.captured[point, site.name] = value

    def residual(self, site: Site) -> Tensor:
        """The residual stream around an `attention` or `ffn` site: what will be added to the sub-layer's output."""
        return self.captured["residual", site.name]

    def normed(self, site: Site, y: Tensor) -> Tensor:
        """The sum of a sub-layer's output and the residual stream, after the norm that follows on post-norm models."""
        z = y + self.residual(site)
        return z if site.norm_module is None else site.norm_module(z)

    def input(self, site: Site) -> Tensor:
        """What entered the attention at `site`, for parts that give keys and values."""
        return self.captured["input", site.name]

    def record(self, key: str, value: Tensor) -> None:
        """Keep a value for a part that acts later in the same stack; a layer that runs again adds another."""
        number = sum(point == "record" for point, _ in self.captured)
        self.captured["record", f"{self.own(key)}/{number}"] = value

    def recorded(self, key: str) -> list[Tensor]:
        """Everything recorded under `key` in this call, in order."""
        own = self.own(key)
        return [v for (point, name), v in self.captured.items() if point == "record" and name.rpartition("/")[0] == own]
