"""Where an adapter is: a folder on this machine, or a repository on the Hugging Face Hub."""

import re
from collections.abc import Sequence
from pathlib import Path

from graft.checkpoint.safe import inside
from graft.errors import BadInput, sentence

HUB = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w][\w.-]{0,95}")
# Never the pickles that may lie beside them.
WANTED = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt", "README.md"]


def locate(folder: str | Path, revision: str | None = None) -> Path:
    """The local folder of an adapter; downloaded first where `folder` is the id of a repository on the Hub.

    Raises BadInput when there is no such folder, the id cannot be reached, or the machine is offline.
    """
    path = Path(folder).expanduser()
    if path.is_dir():
        return path
    if path.exists():
        raise BadInput(f"{path} is a file: give the folder it is in.")
    if not HUB.fullmatch(str(folder)):
        raise BadInput(f"there is no folder {path}, and it is no id on the Hugging Face Hub such as 'name/adapter'.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(folder), revision=revision, allow_patterns=WANTED))
    except LocalEntryNotFoundError as error:
        raise BadInput(
            f"{folder} is no folder here, not in the local cache of the Hub, and the Hub cannot be reached. "
            "Connect (and unset HF_HUB_OFFLINE), or copy the adapter's folder to this machine."
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise BadInput(f"{folder}: the Hugging Face Hub says: {sentence(error)}") from error


def names(places: Sequence[Path], taken: str) -> list[str]:
    """A short name for each folder by the part of its path that the others lack: "monday" of runs/monday/adapter."""
    paths = [place.resolve().parts for place in places]
    common = set.intersection(*map(set, paths)) if len(paths) > 1 else {"adapter"}
    words = [next((part for part in reversed(parts) if part not in common), parts[-1]) for parts in paths]
    plain = [re.sub(r"[^a-z0-9._-]+", "-", word.lower()).lstrip("._-")[:60] or "adapter" for word in words]
    again = {word for word in plain if plain.count(word) > 1} | {taken}
    return [f"{word}-{number}" for number, word in enumerate(plain, 1)] if again & {*plain} else plain


def native(folder: Path) -> bool:
    """Whether a folder holds a graft adapter; False for one of PEFT's. Raises BadInput for neither."""
    if inside(folder, "graft.json"):
        return True
    if inside(folder, "adapter_config.json"):
        return False
    names = sorted(path.name for path in folder.iterdir())
    raise BadInput(
        f"{folder} holds no adapter: neither graft.json nor adapter_config.json is in it. It holds: "
        f"{', '.join(names[:12]) or 'nothing'}."
    )


def weights(folder: Path, name: str) -> Path:
    """The safetensors file of an adapter. Raises BadInput when it is missing, or only a pickle is there."""
    path = inside(folder, name)
    if path is not None:
        return path
    pickles = sorted(p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt"))
    if pickles:
        raise BadInput(
            f"{folder} has no {name}, only the pickle {', '.join(pickles)}, which could run any program when read: "
            "graft never loads it. On a machine you can lose, load it with PEFT and save it again: "
            "model.save_pretrained(folder, safe_serialization=True)."
        )
    raise BadInput(f"{folder} has no {name}: the adapter is incomplete. Get it again from where it came from.")
