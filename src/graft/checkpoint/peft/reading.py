"""Loading a PEFT checkpoint as an adapter of graft."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from graft.anatomy import Anatomy
from graft.attach import Adapter, anatomy_of, probe
from graft.checkpoint.comparison import compare
from graft.checkpoint.peft import (
    copies,
    drawn,
    gated,
    heads,
    low_rank,
    norms,
    products,
    rescaling,
    rotations,
    settings,
    triplets,
    virtual,
)
from graft.checkpoint.peft.form import TENSORS, Plan
from graft.checkpoint.safe import Entry, read_header, read_tensors
from graft.checkpoint.source import weights
from graft.checkpoint.stored import affordable, attaching, fill


def load(
    model: nn.Module,
    folder: Path,
    name: str,
    *,
    check: bool = True,
    head: bool = True,
    batch: Mapping[str, Tensor] | None = None,
) -> Adapter:
    """Attach the PEFT checkpoint in `folder` to `model` as adapter `name`; the same function, whatever its layout.

    head: with the tensors of a task head, where it holds any.

    PEFT keeps no fingerprint of the base, so only names and shapes tell whether it fits. Raises Refused for settings
    that graft would not follow, BadInput for files that do not fit together; the model is then as it was.
    """
    config = settings.read(folder)
    path = weights(folder, TENSORS)
    header = copies.without(path, model, read_header(path))
    anatomy = anatomy_of(model)
    plan = _plan(model, anatomy, config, header)
    affordable(path, model, plan.method, header)
    if head:
        heads.check_named(path, model, config, header, plan.prefix)
    else:
        header = heads.outside(anatomy, header, plan.prefix)
    with attaching(model, plan.method, name, heads.held(anatomy, header, plan.prefix)) as adapter:
        compare(path, header, plan.expected | heads.expected(adapter, header, plan.prefix))
        tensors = read_tensors(path, header)
        fill(adapter, plan.values(adapter, tensors) | heads.values(adapter, tensors, plan.prefix))
        if check:
            probe(model, name, batch)
    if head:
        adapter.remarks += heads.remark(adapter, header, plan.prefix)
    made, here = config.get("base_model_name_or_path"), model.config._name_or_path  # type: ignore[union-attr]
    if made and made != here:
        adapter.remarks += (
            f"PEFT records the base {made!r:.120} and nothing to check it by; this is {here or 'unnamed'!r}",
        )
    return adapter


def _plan(model: nn.Module, anatomy: Anatomy, config: Mapping[str, Any], header: Mapping[str, Entry]) -> Plan:
    match config["peft_type"]:
        case "LORA":
            return low_rank.planned(anatomy, config, header)
        case "IA3":
            return rescaling.planned(anatomy, config, header)
        case "LOHA" | "LOKR":
            return products.planned(anatomy, config, header)
        case "HRA":
            return rotations.planned_reflections(anatomy, config, header)
        case "OFT":
            return rotations.planned_rotations(anatomy, config, header)
        case "VERA":
            return drawn.planned_vectors(anatomy, config, header)
        case "FOURIERFT":
            return drawn.planned_spectra(anatomy, config, header)
        case "LN_TUNING":
            return norms.planned(model, anatomy, config, header)
        case "PROMPT_TUNING" | "P_TUNING":
            return virtual.planned_prompt(model, anatomy, config)
        case "ADALORA":
            return triplets.planned(anatomy, config, header)
        case "ADAPTION_PROMPT":
            return gated.planned(model, anatomy, config)
    return virtual.planned_prefix(model, anatomy, config)
