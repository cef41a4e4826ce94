"""Refuse content that ties the repository to one machine, or does not belong in a repository.

Checked in every file that is committed or would be: paths of a machine, hosts of package registries, binaries
and files too large to be source.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from steps import ROOT

LARGEST_BYTES = 1_000_000
# A path of this kind after something that cannot be part of a longer path or of a URL.
MACHINE_PATH = re.compile(r"(?:(?<![\w.~$}>/-])|(?<=://))/(?:home|root|Users|work|tmp|private/tmp)\b")
# Cargo writes the name of its index, a repository on GitHub, into every lock file: it is not asked for there.
REGISTRY_HOST = re.compile(
    r"\b(?:[\w-]+\.)*(?:pypi\.org|pythonhosted\.org|proxy\.golang\.org|sum\.golang\.org|npmjs\.(?:org|com)"
    r"|crates\.io(?!-index\b)|maven\.org)\b"
)
EXECUTABLES = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"MZ\x90\x00")


def main() -> int:
    paths = _files()
    found = [finding for path in paths for finding in findings(path)]
    for finding in found:
        print(finding, file=sys.stderr)
    print(f"{len(paths)} files, {len(found)} that tie the repository to one machine or do not belong in it")
    return 1 if found or not paths else 0


def findings(path: Path) -> Iterator[str]:
    """What is wrong with one file, a line for each."""
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path.name
    content = path.read_bytes()
    if len(content) > LARGEST_BYTES:
        yield f"{name}: {len(content)} bytes is too large for a source file"
    if content.startswith(EXECUTABLES):
        yield f"{name}: an executable"
    elif b"\0" in content:
        yield f"{name}: not text"
    if b"\0" in content:
        return
    for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
        for match in MACHINE_PATH.finditer(line):
            yield f"{name}:{number}: a path of one machine: {match[0]}"
        for match in REGISTRY_HOST.finditer(line):
            yield f"{name}:{number}: the host of a package registry: {match[0]}"


def _files() -> list[Path]:
    """What is committed or would be; without git (an unpacked archive), whatever make did not put there."""
    if not (ROOT / ".git").exists():
        made = {".venv", ".tools", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
        made |= {"node_modules", "target", "build"}
        names = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        return sorted(ROOT / name for name in names if (ROOT / name).is_file() and not made & set(name.parts))
    # A checkout that belongs to another user is as good as ours to read.
    git = ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"]
    listed = subprocess.run(
        [*git, "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    paths = (ROOT / name for name in listed.split("\0") if name)
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


if __name__ == "__main__":
    sys.exit(main())
