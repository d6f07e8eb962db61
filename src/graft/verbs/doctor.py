"""`graft doctor`: what is here to work with, and the command that installs what is missing."""

import json
import platform
import shlex
import shutil
import sys
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlparse

if TYPE_CHECKING:
    from rich.console import Console

_GIB = 1024**3


@dataclass(frozen=True)
class Options:
    """Show versions, devices, free memory and disk, and which extras are installed.

    Exits with 1 when a package that graft needs is missing or too old.
    """

    folder: Annotated[Path, "the folder whose free disk space counts"] = Path(".")


@dataclass(frozen=True)
class Package:
    """A package that graft can use: what it needs, what is here (None when missing) and whether that will do."""

    name: str
    needs: str
    version: str | None
    fits: bool


@dataclass(frozen=True)
class Extra:
    """A group of optional packages, and the command that installs it."""

    name: str
    packages: list[Package]
    install: str

    @property
    def present(self) -> bool:
        """Whether every package of the group is here."""
        return all(package.fits for package in self.packages)


@dataclass(frozen=True)
class Device:
    """Something to compute on; memory in bytes."""

    name: str
    kind: str
    free: int
    total: int


@dataclass(frozen=True)
class Result:
    """What `graft doctor` found; sizes in bytes."""

    versions: dict[str, str]
    needed: list[Package]
    extras: list[Extra]
    devices: list[Device]
    folder: str
    disk_free: int
    install: str

    @property
    def exit_code(self) -> int:
        """1 when a needed package is missing or too old."""
        return 0 if all(package.fits for package in self.needed) else 1

    def as_json(self) -> dict[str, Any]:
        """Everything, with `present` for each extra."""
        extras = [{**asdict(extra), "present": extra.present} for extra in self.extras]
        return {**asdict(self), "extras": extras, "healthy": self.exit_code == 0}

    def show(self, console: "Console") -> None:
        """Print one table of what is here, one of the extras, and what to repair."""
        from rich.table import Table
        from rich.text import Text

        here = Table.grid(padding=(0, 2))
        for name, version in self.versions.items():
            here.add_row(Text(name, "bold"), Text(version))
        for device in self.devices:
            sizes = f"{device.free / _GIB:.1f} of {device.total / _GIB:.1f} GiB free"
            here.add_row(Text(device.kind, "bold"), Text(f"{device.name}, {sizes}"))
        here.add_row(Text("disk", "bold"), Text(f"{self.disk_free / _GIB:.1f} GiB free in {self.folder}"))
        console.print(here, "", sep="\n")

        for extra in self.extras:
            names = ", ".join(f"{package.name} {package.version or 'missing'}" for package in extra.packages)
            console.print(Text("✓ " if extra.present else "· ").append(extra.name, "bold").append(f"  {names}", "dim"))
            if not extra.present:
                console.print(Text(f"    {extra.install}"), soft_wrap=True)
        wrong = [package for package in self.needed if not package.fits]
        for package in wrong:
            console.print(
                Text(f"✗ {package.name}: graft needs {package.needs}, here is {package.version or 'none'}", "red")
            )
        if wrong:
            console.print(Text(f"    {self.install}"), soft_wrap=True)


def run(options: Options) -> Result:
    """Look at the packages, the devices and the disk."""
    import graft
    from graft.errors import BadInput

    if not options.folder.is_dir():
        raise BadInput(f"--folder {options.folder}: there is no such folder.")
    needed, extras = _packages()
    versions = {"python": platform.python_version(), "graft": graft.__version__, "platform": platform.platform()}
    return Result(
        versions={**versions, **{package.name: package.version for package in needed if package.version}},
        needed=needed,
        extras=[Extra(name, packages, _install(name)) for name, packages in extras.items()],
        devices=_devices(),
        folder=str(options.folder.resolve()),
        disk_free=shutil.disk_usage(options.folder).free,
        install=_install(),
    )


def _packages() -> tuple[list[Package], dict[str, list[Package]]]:
    """Read what graft needs, and may use, from its own package metadata."""
    from packaging.requirements import Requirement

    from graft.errors import Refused

    try:
        mine = metadata.distribution("graft")
    except metadata.PackageNotFoundError as error:
        raise Refused(
            "graft runs from a folder that is not installed: run `make setup`, or `pip install -e .` there."
        ) from error
    needed: list[Package] = []
    extras: dict[str, list[Package]] = {
        name: [] for name in mine.metadata.get_all("Provides-Extra", []) if name != "dev"
    }
    for line in mine.requires or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed.append(_package(requirement))
            continue
        for name, packages in extras.items():
            if requirement.marker.evaluate({"extra": name}):
                packages.append(_package(requirement))
    return needed, {name: packages for name, packages in extras.items() if packages}


def _package(requirement: Any) -> Package:
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        version = None
    fits = version is not None and requirement.specifier.contains(version, prereleases=True)
    return Package(requirement.name, f"{requirement.name}{requirement.specifier}", version, fits)


def _install(extra: str = "") -> str:
    """The command that installs graft as it is installed here, with an extra."""
    origin = json.loads(metadata.distribution("graft").read_text("direct_url.json") or "{}")
    suffix = f"[{extra}]" if extra else ""
    if not origin.get("dir_info", {}).get("editable"):
        return shlex.join([sys.executable, "-m", "pip", "install", f"graft{suffix}"])
    folder = unquote(urlparse(origin["url"]).path)
    pins = Path(folder, "constraints.txt")
    constraints = ["-c", str(pins)] if pins.exists() else []
    return shlex.join([sys.executable, "-m", "pip", "install", *constraints, "-e", f"{folder}{suffix}"])


def _devices() -> list[Device]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    cores = f"{platform.machine()}, {psutil.cpu_count(logical=False)} cores, {torch.get_num_threads()} threads"
    found = [Device(cores, "cpu", memory.available, memory.total)]
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        found.append(Device(torch.cuda.get_device_name(index), f"cuda:{index}", free, total))
    if torch.backends.mps.is_available():  # shares the machine's memory
        found.append(Device("Apple GPU", "mps", memory.available, torch.mps.recommended_max_memory()))
    return found
