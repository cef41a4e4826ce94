"""What the two packages of this repository hold and need: the built wheels are looked into."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Copied before they are built: setuptools builds in the source folder, and takes what an earlier build has left there.
SOURCES = {
    "connector": ("pyproject.toml", "README.md", "LICENSE", "connector", "gen"),
    "simulator": ("simulator/pyproject.toml", "simulator/README.md", "simulator/LICENSE", "simulator/src"),
}
DEMO_ONLY = {"espeakng-loader", "livekit-agents", "pillow", "carrier-simulator"}


def build(project: str, folder: Path) -> zipfile.ZipFile:
    source = folder / "source"
    source.mkdir()
    for name in SOURCES[project]:
        path, copied = ROOT / name, source / Path(name).name
        if path.is_dir():
            shutil.copytree(path, copied, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(path, copied)
    backend = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", backend, str(folder)], cwd=source, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return zipfile.ZipFile(wheel)


def top_level(wheel: zipfile.ZipFile) -> set[str]:
    return {name.partition("/")[0] for name in wheel.namelist() if ".dist-info/" not in name}


def needed(wheel: zipfile.ZipFile) -> set[str]:
    """The packages that an installation without extras brings along."""
    (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    requirements = Parser().parsestr(wheel.read(metadata).decode()).get_all("Requires-Dist", [])
    names = (re.match(r"[\w.-]+", each) for each in requirements if "extra ==" not in each)
    return {match[0].lower() for match in names if match}


@pytest.fixture
def wheel(request: pytest.FixtureRequest, tmp_path: Path) -> zipfile.ZipFile:
    return build(request.param, tmp_path)


@pytest.mark.parametrize("wheel", ["connector"], indirect=True)
def test_the_connector_comes_without_simulator_demo_and_benchmark(wheel: zipfile.ZipFile) -> None:
    assert top_level(wheel) == {"connector", "connectorpb"}
    assert not [name for name in wheel.namelist() if name.startswith("connector/demo")]
    assert {"aiohttp", "livekit"} <= needed(wheel)
    assert not needed(wheel) & DEMO_ONLY


@pytest.mark.parametrize("wheel", ["simulator"], indirect=True)
def test_the_simulator_comes_alone(wheel: zipfile.ZipFile) -> None:
    assert top_level(wheel) == {"carrier_simulator", "pytest_carrier_simulator.py"}
    assert "carrier_simulator/py.typed" in wheel.namelist()
    assert needed(wheel) == {"aiohttp", "cryptography", "multidict", "numpy", "yarl"}
