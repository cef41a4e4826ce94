"""Build the programs that use other people's SDKs: the clients of the conformance suite and the webhook examples.

    clients.py build FOLDER...    what is built already, from the same files, is kept
    clients.py check              say which tools are missing or too old; exit status 1 if any
    clients.py packages           names of the Debian packages that bring what is missing altogether

The language of a folder is known by its build file. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from livekit_server import find_go
from steps import ROOT, StepFailed, exclusive, run_logged, terminate_on_signals

VENV_PYTHON = ROOT / ".venv" / "bin" / "python"
# One target folder for all Rust programs, because most of their dependencies are the same.
RUST_TARGET = ROOT / "tests" / "conformance" / "rust" / "target"
BUILT = frozenset({"node_modules", "build", "target", "__pycache__"})


@dataclass(frozen=True)
class Tool:
    """A program that a build needs."""

    program: str
    minimum: tuple[int, ...]
    package: str
    advice: str = ""

    def found(self) -> str:
        """Its version, or nothing when it is not there."""
        path = shutil.which(self.program)
        if path is None:
            return ""
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60, check=False)
        match = re.search(r"\d+(?:\.\d+)+", said.stdout + said.stderr)
        return match[0] if match else "?"

    def problem(self) -> str | None:
        """What a person has to mend, in a line."""
        version = f" >= {'.'.join(map(str, self.minimum))}" if self.minimum else ""
        wanted = f"conformance needs {self.program}{version}"
        found = self.found()
        if not found:
            return f"{wanted}, and there is none on this machine (Debian package {self.package}){self.advice}"
        if _numbers(found) < self.minimum:
            return f"{wanted}, and this machine has {found}{self.advice}"
        return None


NODE = Tool("node", (20,), "nodejs")
NPM = Tool("npm", (9,), "npm")
JAVA = Tool("javac", (17,), "default-jdk-headless")
MAVEN = Tool("mvn", (3, 6), "maven")
RUST = Tool("rustc", (1, 88), "rustc", advice="; rustup brings a newer one")
CARGO = Tool("cargo", (1, 88), "cargo", advice="; rustup brings a newer one")
# The SDK's TLS library has parts in C.
C = Tool("cc", (), "gcc")


@dataclass(frozen=True)
class Language:
    name: str
    build_file: str
    tools: tuple[Tool, ...]
    output: Path
    """Where the build goes, as seen from the folder; the stamp goes there too, so that they are deleted together."""
    build: Callable[[Path], Sequence[str]]
    expect: str


def _build_node(folder: Path) -> Sequence[str]:
    return ["npm", "ci", "--no-audit", "--no-fund", "--prefix", str(folder)]


def _build_go(folder: Path) -> Sequence[str]:
    return [str(find_go(VENV_PYTHON)), "build", "-C", str(folder), "-buildvcs=false", "-o", "build/"]


def _build_kotlin(folder: Path) -> Sequence[str]:
    return ["mvn", "-B", "-q", "-f", str(folder / "pom.xml"), "clean", "package"]


def _build_rust(folder: Path) -> Sequence[str]:
    manifest = str(folder / "Cargo.toml")
    return ["cargo", "build", "--locked", "--manifest-path", manifest, "--target-dir", str(RUST_TARGET)]


LANGUAGES = (
    Language("Node", "package.json", (NODE, NPM), Path("node_modules"), _build_node, "some seconds"),
    Language("Go", "go.mod", (), Path("build"), _build_go, "the first time 2 minutes"),
    Language("Kotlin", "pom.xml", (JAVA, MAVEN), Path("target"), _build_kotlin, "the first time a minute"),
    Language("Rust", "Cargo.toml", (RUST, CARGO, C), RUST_TARGET, _build_rust, "the first time 3 to 5 minutes"),
)
TOOLS = tuple(tool for language in LANGUAGES for tool in language.tools)


def main(arguments: Sequence[str]) -> int:
    match arguments:
        case ["check"]:
            problems = _problems(TOOLS)
            for problem in problems:
                print(problem, file=sys.stderr)
            return 1 if problems else 0
        case ["packages"]:
            print(" ".join(tool.package for tool in TOOLS if not tool.found()))
            return 0
        case ["build", *folders] if folders:
            return _build([Path(folder).resolve() for folder in folders])
    print(__doc__, file=sys.stderr)
    return 2


def _build(folders: Sequence[Path]) -> int:
    terminate_on_signals()
    try:
        with exclusive("clients"):
            for folder in folders:
                ensure_built(folder)
    except StepFailed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def ensure_built(folder: Path) -> None:
    """Build what is in `folder` unless that was done from the same files. The message of StepFailed names the
    remedy."""
    language = next((known for known in LANGUAGES if (folder / known.build_file).exists()), None)
    if language is None:
        raise StepFailed(f"{folder}: no build file of a language that is known here")
    problems = _problems(language.tools)
    if problems:
        raise StepFailed("\n".join(problems))
    stamp = folder / language.output / f"{folder.name}-built-from"
    identity = _identity(folder, language)
    if stamp.exists() and stamp.read_text() == identity:
        return
    stamp.unlink(missing_ok=True)
    title = f"building {folder.relative_to(ROOT)}"
    run_logged(title, language.build(folder), expect=language.expect)
    stamp.parent.mkdir(exist_ok=True)
    stamp.write_text(identity)


def _identity(folder: Path, language: Language) -> str:
    """Changes with every file that the build reads, with the tools, and with the place."""
    digest = hashlib.sha256(str(folder).encode())
    for tool in language.tools:
        digest.update(tool.found().encode())
    for file in sorted(_sources(folder)):
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(folder: Path) -> Iterator[Path]:
    for directory, names, files in os.walk(folder):
        names[:] = [name for name in names if name not in BUILT]
        yield from (Path(directory) / name for name in files if not name.endswith(".md"))


def _problems(tools: Sequence[Tool]) -> list[str]:
    return [problem for tool in tools if (problem := tool.problem()) is not None]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
