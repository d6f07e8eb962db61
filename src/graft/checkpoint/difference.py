"""How two bases differ, in words: architecture, size of the vocabulary, revision, number format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from graft.checkpoint.fingerprint import PRECISION, Fingerprint, Tell
from graft.checkpoint.safe import listed


@dataclass(frozen=True)
class Difference:
    """What stands against using an adapter on a base, and what is only worth knowing."""

    faults: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def difference(saved: Fingerprint, here: Fingerprint) -> Difference:
    """How the base `here` differs from the one an adapter was `saved` for."""
    changed = _config(saved.config, here.config)
    common = [name for name in saved.tensors if name in here.tensors]
    missing = [name for name in saved.tensors if name not in here.tensors and _counts(name, saved, here)]
    added = [name for name in here.tensors if name not in saved.tensors and _counts(name, saved, here)]
    shapes, vocabulary = _shapes(saved, here, common)
    values = [name for name in common if _differ(saved.tensors[name], here.tensors[name])]
    faults = []
    if vocabulary:
        name, (then, now) = next(iter(vocabulary.items()))
        faults.append(
            f"resized vocabulary: {name} had {then} rows, here {now}. "
            f"Call model.resize_token_embeddings({then}), or load the base and tokenizer that were saved."
        )
        changed.pop("vocab_size", None)
    if shapes or missing or added:
        parts = [f"{what} {listed(names, 3)}" for what, names in (("without", missing), ("with", added)) if names]
        parts += [f"{name} is {list(now)}, was {list(then)}" for name, (then, now) in list(shapes.items())[:3]]
        faults.append(f"another architecture or size: {'; '.join(parts)}. Load the base that is named above.")
    if changed:
        parts = [f"{key} = {now!r}, was {then!r}" for key, (then, now) in list(changed.items())[:6]]
        faults.append(
            f"another configuration: {'; '.join(parts)}. Load the base with the configuration it was saved with."
        )
    if values:
        faults.append(_revision(values, len(common)))
    return Difference(tuple(faults), _formats(saved, here, common))


def _revision(values: list[str], total: int) -> str:
    few = len(values) <= max(2, total // 20)
    if few:
        return (
            f"other values in {listed(values)} ({len(values)} of {total} tensors), as when a checkpoint lacks them and "
            "they start at random. Save the base with graft.checkpoint.save_base and load that, or seed it the same."
        )
    return (
        f"another revision: {len(values)} of {total} tensors have other values ({listed(values, 3)}). "
        "Load the revision named above (from_pretrained(..., revision=...))."
    )


def _counts(name: str, saved: Fingerprint, here: Fingerprint) -> bool:
    """Between models of different task classes only tensors inside layers need to have a counterpart."""
    return saved.kind == here.kind or any(part.isdigit() for part in name.split("."))


def _shapes(
    saved: Fingerprint, here: Fingerprint, common: list[str]
) -> tuple[dict[str, tuple[Any, Any]], dict[str, tuple[int, int]]]:
    """Tensors of another shape; apart, those with as many rows as the vocabulary has words."""
    shapes: dict[str, tuple[Any, Any]] = {}
    vocabulary: dict[str, tuple[int, int]] = {}
    words = (saved.config.get("vocab_size"), here.config.get("vocab_size"))
    for name in common:
        then, now = saved.tensors[name], here.tensors[name]
        if then.shape == now.shape or PACKED & {then.dtype, now.dtype}:
            continue
        if then.shape and now.shape and then.shape[1:] == now.shape[1:] and (then.shape[0], now.shape[0]) == words:
            vocabulary[name] = (then.shape[0], now.shape[0])
        else:
            shapes[name] = (then.shape, now.shape)
    return shapes, vocabulary


PACKED = {"uint8", "int8", "float8_e4m3fn", "float8_e5m2"}


def _differ(then: Tell, now: Tell) -> bool:
    """Whether two samples differ by more than the coarser number format explains."""
    if then.shape != now.shape or then.sample is None or now.sample is None or len(then.sample) != len(now.sample):
        return False
    relative = max(PRECISION.get(getattr(torch, name, None), 0.0) for name in (then.dtype, now.dtype))  # type: ignore[arg-type]
    tiny = 1e-7 if "float16" in (then.dtype, now.dtype) else 1e-30
    return any(abs(a - b) > relative * max(abs(a), abs(b)) + tiny for a, b in zip(then.sample, now.sample, strict=True))


def _config(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Settings that both configurations have and that differ; a newer library's additions are no difference."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in then.keys() & now.keys():
        one, other = then[key], now[key]
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found |= _config(one, other, f"{prefix}{key}.")
        elif one != other:
            found[prefix + key] = (one, other)
    return dict(sorted(found.items()))


def _formats(saved: Fingerprint, here: Fingerprint, common: list[str]) -> tuple[str, ...]:
    """Another number format is no fault: the same function up to rounding."""
    pairs = {(saved.tensors[name].dtype, here.tensors[name].dtype) for name in common}
    other = sorted((then, now) for then, now in pairs if then != now)
    if not other:
        return ()
    said = ", ".join(f"{then} → {now}" for then, now in other)
    return (f"the base is in another number format than when the adapter was saved ({said}): equal up to its rounding",)
