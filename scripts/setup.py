"""Make this checkout ready to run: a virtual environment in .venv and livekit-server in .tools.

Packages are installed, by uv, while livekit-server is built: the build is most of the time. What is there already is
kept, so a second run takes a moment. Two runs at once, and runs that were interrupted, are fine. Standard library only:
this runs before anything is installed.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from livekit_server import check_named_server, ensure_server, find_go, server_ready
from redis_server import ensure_redis, redis_ready
from steps import ROOT, CommandFailed, StepFailed, exclusive, run_logged, run_together, say, terminate_on_signals

VENV = ROOT / ".venv"
VENV_PYTHON = VENV / "bin" / "python"
LOCK_FILE = ROOT / "requirements.lock"
# The packages of this checkout, installed as links to it.
PROJECTS = (ROOT, ROOT / "simulator")
# Written when their step is complete; the content says what the step was done for.
VENV_STAMP = VENV / "made-with"
PACKAGES_STAMP = VENV / "installed-from"


def main() -> int:
    try:
        check_named_server()
        if not _ready():
            terminate_on_signals()
            with exclusive("setup"):
                _ensure_venv()
                if not server_ready():
                    find_go(VENV_PYTHON)  # First: where Go is missing it is installed into .venv, as the packages are.
                run_together(_ensure_packages, lambda: ensure_server(VENV_PYTHON))
                ensure_redis(VENV_PYTHON)
    except StepFailed as error:
        print(f"\nsetup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nsetup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    return 0


def _ready() -> bool:
    return _venv_ready() and _packages_ready() and server_ready() and redis_ready()


def _venv_ready() -> bool:
    return _read(VENV_STAMP) == _python_identity() and VENV_PYTHON.exists()


def _packages_ready() -> bool:
    return _read(PACKAGES_STAMP) == _packages_identity()


def _ensure_venv() -> None:
    if _venv_ready():
        return
    if importlib.util.find_spec("ensurepip") is None:
        raise StepFailed(
            f"{sys.executable} comes without ensurepip, so it cannot make a virtual environment. "
            "On Debian and Ubuntu: apt-get install python3-venv. Or name another one: make setup PYTHON=..."
        )
    # One that an interrupted run left, another Python made, or a copied checkout brought along.
    shutil.rmtree(VENV, ignore_errors=True)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "venv", str(VENV)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        raise StepFailed(f"cannot run {sys.executable}: {error}") from error
    if done.returncode != 0:
        raise StepFailed(f"cannot make a virtual environment:\n{done.stdout}{done.stderr}")
    VENV_STAMP.write_text(_python_identity())


def _ensure_packages() -> None:
    if _packages_ready():
        return
    pip = [str(VENV_PYTHON), "-m", "pip", "install", "--disable-pip-version-check"]
    try:
        pinned = re.search(r"^uv==\S+", LOCK_FILE.read_text(), re.MULTILINE)
        run_logged("fetching uv", [*pip, "--quiet", pinned[0] if pinned else "uv"])
        _install([str(VENV_PYTHON), "-m", "uv", "pip", "install", "--python", str(VENV_PYTHON)], _uv_environment())
    except CommandFailed as error:
        # uv is quicker, and not everywhere: no wheel for the system, a mirror that it cannot read.
        say(f"{error}\nsetup: uv cannot install here; pip does, in a minute or two")
        _install(pip, None)
    PACKAGES_STAMP.write_text(_packages_identity())


def _install(command: Sequence[str], environment: Mapping[str, str] | None) -> None:
    run_logged("installing packages", [*command, "-r", str(LOCK_FILE)], environment, expect="up to a minute")
    # The lock file brought the build backend: no second download for an isolated build.
    links = [word for project in PROJECTS for word in ("-e", str(project))]
    run_logged("installing the connector", [*command, "--no-deps", "--no-build-isolation", *links], environment)


_PIP_TO_UV = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
    "timeout": "UV_HTTP_TIMEOUT",
    "default-timeout": "UV_HTTP_TIMEOUT",
}


def _uv_environment() -> dict[str, str]:
    """uv does not read pip's configuration: a mirror or a certificate that pip was told of holds for uv, too."""
    environment = dict(os.environ)
    said = subprocess.run(
        [str(VENV_PYTHON), "-m", "pip", "config", "list"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    # Lines such as "global.index-url='https://…'" and ":env:.cert='…'"; the environment is listed last and wins.
    told = {m[1]: m[2] for m in re.finditer(r"^[^=]*\.([a-z-]+)='(.*)'$", said.stdout, re.MULTILINE)}
    for name, value in told.items():
        if name in _PIP_TO_UV:
            # Of several addresses pip writes one a line, and uv reads them with spaces between.
            environment.setdefault(_PIP_TO_UV[name], value.replace("\\n", " ").strip())
    return environment


def _python_identity() -> str:
    """The Python that made the environment, and the place it was made for (its scripts name it)."""
    return f"{sys.version}\n{sys.base_prefix}\n{VENV}\n"


def _packages_identity() -> str:
    digest = hashlib.sha256(LOCK_FILE.read_bytes())
    for folder in PROJECTS:
        # Only those parts of pyproject.toml that affect an installation: a changed lint rule must not reinstall.
        project = tomllib.loads((folder / "pyproject.toml").read_text())
        parts = [project["build-system"], project["project"], project["tool"]["setuptools"]]
        digest.update(json.dumps(parts, sort_keys=True).encode())
    return digest.hexdigest()


def _read(path: Path) -> str | None:
    try:
        return path.read_text()
    except OSError:
        return None


if __name__ == "__main__":
    sys.exit(main())
