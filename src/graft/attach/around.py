"""Running a layer otherwise than once: what takes the place of its `forward`, and what a part with `around` is handed.

Hooks cannot keep a module from running, so the module gets a `forward` of its own instance: an object, since a closure
neither pickles nor copies. Without a part that acts there it runs what was there before.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten
from transformers import Cache

from graft.anatomy.site import Site
from graft.attach.adapter import Adapter
from graft.attach.call import Call
from graft.attach.hooks import first, first_of, narrow, swap, with_first
from graft.attach.recompute import checkpoints_activations
from graft.attach.spot import Grafted, Spot
from graft.errors import Refused

Half = Literal["first", "second"]
SIDE_BY_SIDE = (
    "{} cannot run in halves: between its attention and its feed-forward network there is no one point where all that "
    "the attention adds, and nothing else, is in the residual stream. Use a variant that runs layers whole."
)


class Instead:
    """The `forward` of a layer that parts run. `before`: the one that the instance had, if any."""

    def __init__(self, module: nn.Module, before: Callable[..., Any] | None) -> None:
        self.module, self.before = module, before
        self.checked = False  # whether the second half was seen to begin with what it was given

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """The module's own forward."""
        if self.before is not None:
            return self.before(*args, **kwargs)
        return type(self.module).forward(self.module, *args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        spot: Spot = self.module.graft  # type: ignore[assignment]
        call = spot.grafted.now()
        works = {name: spot.work[name].awake() for name in call.used() if name in spot.work}
        acting = [(name, job) for name, work in works.items() for job in work.around]
        if not acting:
            return self.run(*args, **kwargs)
        if len(acting) > 1:
            names = " and ".join(dict.fromkeys(name for name, _ in acting))
            raise Refused(f"{names} each want to run {spot.path} in their own way: use one of them at a time.")
        (name, job), x = acting[0], first(args, kwargs)
        rows = call.rows_of(name, len(x), x.device)
        own = call if rows is None else narrow(call, name, rows, len(x))
        inner = Inner(self, spot, call, *swap(args, kwargs, x.new_empty(0)), None if rows is None else x, rows)
        y = job.part.around(inner, x if rows is None else x[rows], job.site, job.told(own))
        whole = y if rows is None else first_of(inner.output).index_copy(0, rows, y)
        return whole if inner.output is None else with_first(inner.output, whole)


@dataclass
class Inner:
    """A layer, with everything it was called with apart from its hidden states.

    Called with hidden states it gives what the layer makes of them, or `first` and `second` its two halves, with what
    other parts do inside it. The layer's further outputs are those of the last time it ran.
    """

    instead: Instead
    spot: Spot
    call: Call
    args: tuple
    kwargs: dict[str, Any]
    whole: Tensor | None
    rows: Tensor | None
    output: Any = None
    given: Tensor | None = None
    extras: dict[str, tuple] = field(default_factory=dict)

    def __call__(self, x: Tensor) -> Tensor:
        return self._take(self._run(self._given(x)))

    def first(self, x: Tensor) -> Tensor:
        """What the attention makes of `x`, with its residual: what the feed-forward network goes on from."""
        given = self._given(x)
        try:
            with self._half("first"):
                self._run(given)
        except Reached as reached:
            a = reached.args[0].reshape(given.shape)
        if not self.extras or a.data_ptr() == given.data_ptr():
            raise Refused(SIDE_BY_SIDE.format(self.spot.path))
        if self.rows is None:
            return a
        self.whole = a
        return a[self.rows]

    def second(self, a: Tensor) -> Tensor:
        """What the feed-forward network makes of `a`, with its residual: the attention does not run again."""
        with self._half("second", a):
            return self._take(self._run(self._given(a)))

    def check(self, a: Tensor) -> None:
        """See, once, that a second half begins with what it was given, and nothing that the attention left."""
        if self.instead.checked or self.rows is not None or self.given is None or a.is_meta:
            return
        self.instead.checked = True
        if not torch.equal(a.reshape(self.given.shape), self.given):
            raise Refused(SIDE_BY_SIDE.format(self.spot.path))

    @property
    def reversible(self) -> bool:
        """Whether what it was called with can be had again in a backward: no rows of other adapters, and no cache."""
        return self.rows is None and not any(isinstance(each, Cache) for each in self._leaves()[0])

    def needs(self) -> list[Tensor]:
        """All else that its output can be derived by: trained tensors, and what came to it from elsewhere."""
        parts = [p for name in self.call.used() for p in self.spot.grafted.adapters[name].placed if p.site is None]
        owners = [self.instead.module, *(placed.part for placed in parts)]
        found = [p for owner in owners for p in owner.parameters()] + [t for t in self._tensors() if t.requires_grad]
        given = [t for keys in self.call.prefixes.values() for pair in keys.values() for t in pair]
        if any(t.requires_grad for t in given):
            raise Refused(f"virtual tokens cannot train at {self.spot.path}, which runs again in backward.")
        return list({id(tensor): tensor for tensor in found if tensor.requires_grad}.values())

    @contextmanager
    def again(self) -> Iterator["Inner"]:
        """Within the `with`: the same layer in the same call, cut off from the graph of what it was given."""
        leaves, spec = self._leaves()
        cut = {id(t): t.detach().requires_grad_() for t in self._tensors() if t.requires_grad}
        args, kwargs = tree_unflatten([cut.get(id(each), each) for each in leaves], spec)
        grafted = self.spot.grafted
        outer, grafted.call = grafted.call, replace(self.call, captured={}, narrowed={}, carried={})
        try:
            yield replace(self, call=grafted.call, args=args, kwargs=kwargs, extras={})
        finally:
            grafted.call = outer

    def alone(self) -> "Inner":
        """Without what the call holds of the graph around it: what may be kept for a backward."""
        return replace(self, call=replace(self.call, cache=None, captured={}, narrowed={}, carried={}), output=None)

    def _leaves(self) -> tuple[list[Any], Any]:
        return tree_flatten((self.args, self.kwargs), is_leaf=lambda each: isinstance(each, Cache))

    def _tensors(self) -> list[Tensor]:
        return [each for each in self._leaves()[0] if isinstance(each, Tensor)]

    def _given(self, x: Tensor) -> Tensor:
        """All rows of the batch, with `x` in those it is about."""
        return x if self.rows is None or self.whole is None else self.whole.index_copy(0, self.rows, x)

    def _run(self, x: Tensor) -> Any:
        args, kwargs = swap(self.args, self.kwargs, x)
        return self.instead.run(*args, **kwargs)

    def _take(self, output: Any) -> Tensor:
        self.output = output
        y = first_of(output)
        return y if self.rows is None else y[self.rows]

    @contextmanager
    def _half(self, half: Half, given: Tensor | None = None) -> Iterator[None]:
        self.spot.running, self.given = (half, self), given
        try:
            yield
        finally:
            self.spot.running = self.given = None


class Reached(Exception):
    """The end of a layer's first half; holds the residual stream there."""


class Passed:
    """The `forward` of an attention in a layer that runs in halves: in the second it gives zeros without running."""

    whole = False

    def __init__(self, module: nn.Module, before: Callable[..., Any] | None) -> None:
        self.instead = Instead(module, before)
        self.width = 0
        self.absent: tuple = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        spot: Spot = self.instead.module.graft  # type: ignore[assignment]
        half = spot.in_half()
        if half is None:
            return self.instead.run(*args, **kwargs)
        which, inner = half
        if which == "first":
            output = self.instead.run(*args, **kwargs)
            self.width = first_of(output).shape[-1]
            extras = () if isinstance(output, Tensor) else tuple(output[1:])
            inner.extras[spot.path], self.absent = extras, (None,) * len(extras)
            return output
        x = first(args, kwargs)
        nothing = x if self.whole else x.new_zeros(*x.shape[:-1], self.width)
        # What else an attention gives may go to the next layer; where it did not run before, in backward, nothing does.
        extras = inner.extras.get(spot.path, self.absent)
        return (nothing, *extras) if extras else nothing


class PassedWhole(Passed):
    """The same of an attention that has residual and norm in itself: it gives what it is given."""

    whole = True


def replace_forward(spot: Spot, module: nn.Module, kind: type["Instead | Passed"]) -> None:
    """Give a module a forward of its own instance, once; `restore_forward` takes it back."""
    if spot.before is None:
        spot.before = (module.__dict__.get("forward"),)
        module.__dict__["forward"] = kind(module, spot.before[0])


def restore_forward(spot: Spot, module: nn.Module) -> None:
    """Have a module run as it did before `replace_forward`."""
    if spot.before is not None:
        del module.__dict__["forward"]
        if spot.before[0] is not None:
            module.__dict__["forward"] = spot.before[0]
        spot.before = None


def halves(record: Grafted, site: Site) -> list[tuple[str, str]]:
    """What has to be known to run a layer in halves: modules by path, and what each is there.

    Raises Refused where the layer has no point between attention and feed-forward network.
    """
    inside = [each for each in record.anatomy.sites if each.stack == site.stack and each.layer == site.layer]
    attentions = [each for each in inside if each.role == "attention"]
    networks = [each for each in inside if each.role == "ffn"]
    middles = {each.residual for each in networks} - {each.residual for each in attentions}
    if len(networks) != 1 or not attentions or None in middles or len(middles) != 1:
        raise Refused(SIDE_BY_SIDE.format(site.path))
    found = [(str(next(iter(middles))), "middle")]
    for each in attentions:
        norms = (each.norm, each.residual if each.residual != each.entry else None)
        whole = any(path is not None and path.startswith(f"{each.path}.") for path in norms)
        found.append((each.path, "sub-layer" if whole else "attention"))
        found += [] if whole else [(str(each.exit), "exit")]
        found += [(each.norm, "norm")] if each.norm is not None and not whole else []
    return found


def halt(module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
    """Before the module that the residual stream enters between a layer's halves: end the first one."""
    half = module.graft.in_half()  # type: ignore[operator,union-attr]
    if half is None:
        return
    which, inner = half
    if which == "first":
        raise Reached(first(args, kwargs))
    inner.check(first(args, kwargs))


def silence(module: nn.Module, args: tuple, output: Any) -> Any:
    """After what leads out of an attention: nothing comes of it in a layer's second half."""
    return with_first(output, torch.zeros_like(first_of(output))) if module.graft.passed else None  # type: ignore


def bypass(module: nn.Module, args: tuple, output: Any) -> Any:
    """After the norm behind an attention: in a layer's second half its input has been normed in the first."""
    return args[0] if module.graft.passed else None  # type: ignore[union-attr]


def runs_layers(adapter: Adapter) -> bool:
    """Whether an adapter has parts that run layers in their own way."""
    return any("around" in placed.part.verbs() for placed in adapter.placed)


def refuse_checkpointing(adapter: Adapter) -> None:
    """Raise Refused for an adapter whose layers run again in backward by themselves."""
    if runs_layers(adapter):
        raise Refused(
            f"{adapter.name} runs layers in its own way, and they cannot be checkpointed as well: leave "
            "--checkpointing off. In a program: model.gradient_checkpointing_disable()."
        )


def without_cache(grafted: Grafted, module: nn.Module, call: Call, inputs: dict[str, Any]) -> dict[str, Any]:
    """A stack's inputs where its layers run again in backward: no cache is filled that nobody asked for.

    Raises Refused where activations are recomputed by checkpointing as well.
    """
    adapters = [grafted.adapters[name] for name in call.used()]
    if not torch.is_grad_enabled() or not any(map(runs_layers, adapters)):
        return inputs
    if module.training and checkpoints_activations(grafted.model):
        for adapter in adapters:
            refuse_checkpointing(adapter)
    takes = "use_cache" in inspect.signature(type(module).forward).parameters or "use_cache" in inputs
    asked = inputs.get("use_cache") or inputs.get("past_key_values") is not None
    return {**inputs, "use_cache": False} if takes and not asked else inputs
