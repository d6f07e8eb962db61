"""`graft doctor` against what the machine and the package's own metadata say."""

import json
import shutil
import tomllib
from importlib import metadata
from pathlib import Path

import psutil
import pytest

import graft
from graft import cli
from graft.errors import BadInput, Refused
from graft.verbs import doctor

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def forget(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    """Make packages look missing (None) or of another version."""
    real = metadata.version

    def version(name: str) -> str:
        if name in versions and versions[name] is None:
            raise metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)


def test_it_knows_every_requirement_and_extra() -> None:
    seen = doctor.run(doctor.Options())
    assert sorted(package.needs for package in seen.needed) == sorted(PROJECT["dependencies"])
    assert {extra.name for extra in seen.extras} == set(PROJECT["optional-dependencies"]) - {"dev"}
    assert seen.versions["torch"] == metadata.version("torch") and seen.versions["graft"] == graft.__version__
    assert seen.exit_code == 0


def test_devices_and_disk(tmp_path: Path) -> None:
    seen = doctor.run(doctor.Options(tmp_path))
    assert seen.devices[0].kind == "cpu" and seen.devices[0].total == psutil.virtual_memory().total
    assert all(0 < device.free <= device.total for device in seen.devices)
    assert seen.disk_free == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)


def test_a_missing_extra_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    forget(monkeypatch, {"tensorboard": None})
    (extra,) = [extra for extra in doctor.run(doctor.Options()).extras if extra.name == "track"]
    assert not extra.present
    assert "-m pip install" in extra.install and extra.install.rstrip("'").endswith("[track]")


@pytest.mark.parametrize(
    ("version", "healthy"), [(None, False), ("2.10.9", False), ("2.11.0", True), ("2.13.0+cpu", True)]
)
def test_what_is_missing_or_too_old_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: str | None, healthy: bool
) -> None:
    forget(monkeypatch, {"torch": version})
    assert cli.main(["doctor"]) == (0 if healthy else 1)
    assert (f"graft needs torch>=2.11, here is {version or 'none'}" in capsys.readouterr().out) is not healthy
    assert cli.main(["doctor", "--json"]) == (0 if healthy else 1)
    assert json.loads(capsys.readouterr().out)["healthy"] is healthy


def test_it_refuses_what_it_cannot_look_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        doctor.run(doctor.Options(tmp_path / "nowhere"))

    def nothing(name: str) -> metadata.Distribution:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", nothing)
    with pytest.raises(Refused, match="make setup"):
        doctor.run(doctor.Options())
