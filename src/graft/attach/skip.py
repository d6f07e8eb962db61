"""Skipping what is frozen: layers that an adapter does not touch give what they gave before, and do not run.

What enters the lowest layer that an adapter touches depends on the row alone, so it can be computed once and kept. A
row is known by its content (token ids and whatever else comes per token, without padding), not by a number: rows of
training and validation, and the same rows in other runs, find their states without anybody telling which they are.

Each row is computed by itself, unpadded, in evaluation mode: the frozen layers run without their own dropout, and what
is kept depends neither on the rows beside it nor on which run came first.
"""

import hashlib
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from graft.anatomy import Anatomy
from graft.anatomy.site import Stack
from graft.attach.adapter import Adapter, Placed
from graft.attach.hooks import first, first_of, swap
from graft.attach.mode import in_mode
from graft.attach.spot import Grafted, require
from graft.attach.stack import named_inputs
from graft.errors import Refused

ENTRY = -1  # the layer "before the first": what the embeddings give
UNTOLD = ("use_cache", "return_dict")  # inputs that do not change what layers give
State = dict[int, Tensor]  # by layer, (tokens of a row, width)


@dataclass(frozen=True)
class Frozen:
    """The first `depth` layers of a stack, which nothing of an adapter changes. `heard`: its parts look at what each
    of them gives, so all of that is kept; else the last one's output alone."""

    stack: Stack
    depth: int
    heard: bool

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers whose output is kept."""
        return (ENTRY, *range(self.depth)) if self.heard else (self.depth - 1,)


class Store(Protocol):
    """Keeps states of rows. `extras`: how many values a layer returns beside the hidden states; None: it returns a
    tensor; -1: not known yet."""

    seconds: float
    extras: int | None

    def get(self, row: bytes, layer: int) -> Tensor | None:
        """The state of a row after a layer, if it was kept."""

    def put(self, row: bytes, layer: int, state: Tensor) -> None:
        """Keep a state, if there is room."""


def frozen(adapter: Adapter) -> Frozen | None:
    """The layers that can be skipped while `adapter` is in use; None where there are none.

    In a model of several stacks these are the first one's: the others depend on it. Virtual tokens and keys move the
    positions of all layers, and layers that are run more than once, or left out at random, have no state of their own.
    """
    anatomy = require(adapter.model, adapter.name).anatomy
    settings = vars(adapter.model.config.get_text_config())  # type: ignore[operator,union-attr]
    if not anatomy.stacks or any("layerdrop" in name and value for name, value in settings.items()):
        return None
    stack, parts = anatomy.stacks[0], [placed for placed in adapter.placed if placed.site is not None]
    if stack.repeats > 1 or any(placed.part.verbs() & {"keys_values", "tokens"} for placed in parts):
        return None
    order = _order(anatomy)
    touched = [_layer(path, stack, order) for path in adapter.trained]
    touched += [_lowest(placed, stack, order) for placed in parts if not placed.part.listens]
    depth = max(0, min(touched, default=len(stack.layers)))
    listeners = [_lowest(placed, stack, order) for placed in parts if placed.part.listens]
    return Frozen(stack, depth, min(listeners, default=depth) < depth) if depth else None


def tensors(adapter: Adapter, found: Frozen) -> Iterator[tuple[int, str, Tensor]]:
    """Everything that the kept states depend on: layer, path, and parameter or buffer of the base."""
    order = _order(require(adapter.model).anatomy)
    for path, tensor in (*adapter.model.named_parameters(), *adapter.model.named_buffers()):
        if ".graft." not in f".{path}" and (layer := _layer(path, found.stack, order)) < found.depth:
            yield layer, path, tensor


def modules(adapter: Adapter, found: Frozen) -> Iterator[nn.Module]:
    """The frozen layers and all that comes before them, which no gradient goes through."""
    order = _order(require(adapter.model).anatomy)
    for path, module in adapter.model.named_modules():
        if path in order and _layer(path, found.stack, order) < found.depth:
            yield module


def _order(anatomy: Anatomy) -> dict[str, int]:
    return {path: at for at, (path, _, _) in enumerate(anatomy.tree)}


def _lowest(placed: Placed, stack: Stack, order: dict[str, int]) -> int:
    site = placed.site
    assert site is not None
    if site.role == "stack" and site.path == stack.trunk:
        return len(stack.layers)
    paths = {path for path in (site.path, site.entry, site.exit, site.residual) if path is not None}
    return min(_layer(path, stack, order) for path in paths)


def _layer(path: str, stack: Stack, order: dict[str, int]) -> int:
    """The number of the layer that holds a module or a tensor; ENTRY before the layers, their number after them."""
    for number, layer in enumerate(stack.layers):
        if path == layer or path.startswith(f"{layer}."):
            return number
    module = path if path in order else path.rpartition(".")[0]
    outside = bool(stack.path) and module != stack.path and not module.startswith(f"{stack.path}.")
    return len(stack.layers) if outside or order[module] > order[stack.layers[-1]] else ENTRY


@contextmanager
def skipped(adapter: Adapter, found: Frozen, store: Store) -> Iterator[None]:
    """Within the `with`, frozen layers give what is in `store`, and run for rows that are not in it.

    Forwards with anything else than rows of tokens (embeddings, a cache, a mask per query), or with another adapter in
    use, run as ever; the others fill no cache. Gradients are those of the ordinary forward, without dropout in the
    frozen layers. Raises Refused where the model leaves its layers out.
    """
    model = adapter.model
    skip = _Skip(require(model, adapter.name), adapter.name, found, store)
    layers: list[Any] = [model.get_submodule(path) for path in found.stack.layers]
    stack = model.get_submodule(found.stack.path)
    handles = [
        stack.register_forward_pre_hook(skip.enter, with_kwargs=True, prepend=True),
        stack.register_forward_hook(skip.leave),
        layers[0].register_forward_pre_hook(skip.begin, with_kwargs=True, prepend=True),
    ]
    own = [layer.__dict__.get("forward") for layer in layers]
    for number, layer in enumerate(layers):
        layer.forward = skip.instead(number, layer.forward)
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        for layer, forward in zip(layers, own, strict=True):
            del layer.forward
            if forward is not None:
                layer.forward = forward


class _Skip:
    """The forwards of one stack meanwhile. `given`: what layers are to give in the one in progress; `computed`: what
    they gave, in one that computes states; `reached`: whether any layer was asked."""

    def __init__(self, record: Grafted, name: str, found: Frozen, store: Store) -> None:
        self.record, self.name, self.found, self.store = record, name, found, store
        self.given: State | None = None
        self.computed: State | None = None
        self.reached = False

    def enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        """Before the stack runs: have the states of its rows at hand."""
        if self.computed is not None:
            return None
        self.given, self.reached = None, False
        rows = Rows.of(named_inputs(module, args, kwargs)) if self.record.names in (None, self.name) else None
        if rows is None:
            return None
        states = self._states(module, rows)
        self.given = {layer: rows.spread([state[layer] for state in states]) for layer in self.found.layers}
        return (), _without_cache(module, rows.inputs)

    def leave(self, module: nn.Module, args: tuple, output: Any) -> None:
        """After the stack ran: nothing stays behind."""
        if self.computed is None and self.given is not None:
            self.given = None
            if not self.reached:
                raise self._left_out()

    def begin(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        """Before the first layer: what the embeddings gave, without their dropout."""
        given = None if self.computed is not None or self.given is None else self.given.get(ENTRY)
        return None if given is None else swap(args, kwargs, given)

    def instead(self, number: int, forward: Callable[..., Any]) -> Callable[..., Any]:
        """A layer's forward that runs only where it has to."""

        def run(*args: Any, **kwargs: Any) -> Any:
            skips = self.given is not None and number < self.found.depth
            if self.computed is not None and number < self.found.depth:
                if number == 0:
                    self.computed[ENTRY] = first(args, kwargs)[0]
                output = forward(*args, **kwargs)
                self.store.extras = None if isinstance(output, Tensor) else len(output) - 1
                self.computed[number] = first_of(output)[0]
                return output
            if self.computed is None and not skips:
                return forward(*args, **kwargs)
            self.reached = True
            x = first(args, kwargs)
            x = x if self.given is None else self.given.get(number, x)
            return x if self.store.extras is None else (x, *[None] * self.store.extras)

        return run

    def _left_out(self) -> Refused:
        return Refused(f"the {self.found.stack.name} did not run its layers, so they cannot be skipped.")

    def _states(self, module: nn.Module, rows: "Rows") -> list[State]:
        """The state of each row: kept, or computed now and kept where there is room."""
        found: list[State] = []
        for row in rows.names:
            kept = ((layer, self.store.get(row, layer)) for layer in self.found.layers)
            found.append({layer: state for layer, state in kept if state is not None})
        missing = [at for at, state in enumerate(found) if len(state) < len(self.found.layers)]
        began = time.perf_counter()
        if missing:
            with self._computing(module):
                for at in missing:
                    self.computed = {}
                    module(**_without_cache(module, rows.alone(at)))
                    if any(layer not in self.computed for layer in self.found.layers):
                        raise self._left_out()
                    found[at] = {layer: self.computed[layer] for layer in self.found.layers}
                    for layer, state in found[at].items():
                        self.store.put(rows.names[at], layer, state)
            self.store.seconds += time.perf_counter() - began
        return found

    @contextmanager
    def _computing(self, module: nn.Module) -> Iterator[None]:
        """Forwards of the base alone, in evaluation mode, that end with the last frozen layer."""
        names, self.record.names, self.record.call = self.record.names, None, None
        try:
            with in_mode(module, training=False), torch.inference_mode(False), torch.no_grad():
                yield
        finally:
            self.computed = None
            self.record.names, self.record.call = names, None
            torch.clear_autocast_cache()  # or weights cast here, without a graph, would be used by what trains


@dataclass(frozen=True)
class Rows:
    """The rows of a forward: its inputs, which tokens are real (rows, tokens), and a name for each by its content."""

    inputs: dict[str, Any]
    tokens: tuple[str, ...]
    real: Tensor
    names: tuple[bytes, ...]

    @classmethod
    def of(cls, inputs: dict[str, Any]) -> "Rows | None":
        """The rows, or None where there is more to a forward than rows of tokens with padding at their ends."""
        ids = inputs.get("input_ids")
        if not isinstance(ids, Tensor) or ids.dim() != 2:
            return None
        given = {name: value for name, value in inputs.items() if value is not None and name not in UNTOLD}
        tokens = {name: given.pop(name) for name in sorted(given) if isinstance(given[name], Tensor)}
        if any(each.shape != ids.shape or each.is_floating_point() for each in tokens.values()):
            return None
        if any(value is not False for value in given.values()):
            return None
        real = tokens.pop("attention_mask", torch.ones_like(ids)).bool()
        ends = real.int().diff(dim=1).ne(0).sum(1) + real[:, 0].int() + real[:, -1].int()
        if (ends != 2).any():
            return None
        device = ids.device.type
        how = f"{list(tokens)} {torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None}"
        arrays, mask = [each.cpu().numpy() for each in tokens.values()], real.cpu().numpy()
        names = [[how.encode(), *(each[at][mask[at]].tobytes() for each in arrays)] for at in range(len(mask))]
        digests = tuple(hashlib.blake2b(b"|".join(name), digest_size=16).digest() for name in names)
        return cls(inputs, (*tokens, "attention_mask"), real, digests)

    def alone(self, at: int) -> dict[str, Any]:
        """The inputs of one row, without padding."""
        real, given = self.real[at], self.inputs
        return {n: v[at : at + 1, real] if n in self.tokens and v is not None else v for n, v in given.items()}

    def spread(self, states: list[Tensor]) -> Tensor:
        """(rows, tokens, width) from each row's own (tokens, width); zeros where there is padding."""
        whole = states[0].new_zeros(*self.real.shape, states[0].shape[-1])
        whole[self.real] = torch.cat(states)
        return whole


def _without_cache(module: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
    takes = "use_cache" in inputs or "use_cache" in inspect.signature(type(module).forward).parameters
    return {**inputs, "use_cache": False} if takes else inputs
