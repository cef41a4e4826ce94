"""Resolve requirements.lock from pyproject.toml and the simulator's, for every supported Python and platform at once.

Arguments go to `uv pip compile` (--upgrade, --upgrade-package NAME).
"""

from __future__ import annotations

import os
import subprocess
import sys

from steps import ROOT

HEADER = """\
# Every package of a development environment, in the version CI uses. Written by `make lock`.
# No hashes and no index: a mirror that repacks its files must do as well as the original.
"""


def main() -> int:
    lock = ROOT / "requirements.lock"
    command = [
        *(sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml", "simulator/pyproject.toml"),
        *("--universal", "--python-version", "3.11", "--extra", "dev", "--output-file", lock.name),
        # One version for every Python: types checked on one hold on all.
        *("--fork-strategy", "fewest"),
        *("--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header", "--quiet"),
        *sys.argv[1:],
    ]
    # uv does not read pip's configuration; pip's settings in the environment are passed on to it.
    environment = dict(os.environ)
    for pips, uvs in (
        ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"),
        ("PIP_EXTRA_INDEX_URL", "UV_INDEX"),
        ("PIP_CERT", "SSL_CERT_FILE"),
    ):
        if pips in environment:
            environment.setdefault(uvs, environment[pips])
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
    if done.returncode == 0:
        pinned = [line for line in lock.read_text().splitlines(keepends=True) if not line.startswith("#")]
        lock.write_text(HEADER + "".join(pinned))
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
