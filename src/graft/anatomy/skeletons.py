"""A model's modules from its configuration alone: on the `meta` device, with no weights read and no memory taken."""

import difflib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graft.errors import BadInput, Refused, sentence


def skeleton(source: Any, auto: str = "") -> nn.Module:
    """The model that a configuration describes, on `meta`.

    `source` is a transformers configuration, a folder with `config.json`, such a file, or a hub id. The class is the
    one that `auto`, one of transformers' Auto classes, makes of it; by default the first of `architectures`, or the
    bare model where the configuration names none. Code that comes with a model is never run. Raises BadInput where
    there is no configuration or transformers does not know it.
    """
    import transformers
    from transformers.initialization import no_init_weights

    config = source if not isinstance(source, (str, Path)) else configuration(source)
    name = next(iter(getattr(config, "architectures", None) or ()), None)
    kind = _model_class(name, config) if name and not auto else None
    make = kind or partial(getattr(transformers, auto or "AutoModel").from_config, trust_remote_code=False)
    with torch.device("meta"), no_init_weights():
        model = make(config)
    model.tie_weights()  # part of the initialization that was left out
    return model


def configuration(source: str | Path) -> Any:
    """The transformers configuration at a folder, a config.json or a hub id. Raises BadInput or Refused."""
    from transformers import AutoConfig, PreTrainedConfig

    path = Path(source)
    if path.is_dir() and not (path / "config.json").is_file():
        seen = ", ".join(sorted(each.name for each in path.iterdir())[:8]) or "nothing"
        raise BadInput(f"{path}: there is no config.json in this folder (it holds {seen}). Give a model's own folder.")
    if not path.exists() and (path.is_absolute() or str(source).startswith((".", "~")) or len(path.parts) > 2):
        raise BadInput(f"{source}: there is no such folder or file.")
    if path.is_file() and path.suffix != ".json":
        raise BadInput(f"{path}: a {path.suffix or 'plain'} file. Give the model's folder or its config.json.")
    read: dict[str, Any] = {}
    try:
        read, _ = PreTrainedConfig.get_config_dict(str(source))
        return AutoConfig.from_pretrained(str(source), trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if "auto_map" in read:
            raise Refused(
                f"{source}: this model brings code of its own ({read['auto_map']}), and graft runs none of it. "
                "Use a model whose architecture is part of transformers."
            ) from error
        raise BadInput(
            f"{source}: no usable configuration. {sentence(error)} "
            "Give a folder with config.json, a config.json, or the id of a model on the Hugging Face hub."
        ) from error


def _model_class(name: str, config: Any) -> Any:
    import transformers

    found = getattr(transformers, name, None)
    if not isinstance(found, type) or not issubclass(found, transformers.PreTrainedModel):
        near = difflib.get_close_matches(name, dir(transformers), n=1, cutoff=0.8)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise BadInput(
            f"architectures names {name!r}, a model that transformers {transformers.__version__} does not have.{hint} "
            "Correct it in config.json or update transformers."
        )
    if found.config_class is None or not isinstance(config, found.config_class):
        raise BadInput(
            f"architectures names {name}, which is not made from a {type(config).__name__}. "
            "Correct `architectures` in config.json."
        )
    return found
