"""The programs that the suite runs: LiveKit's SDKs as published, one program for each language."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
EXAMPLES = ROOT / "examples"
RUST_BINARIES = HERE / "rust" / "target" / "debug"
BUILD_PATIENCE = 1200.0
RUN_PATIENCE = 30.0
_SETTINGS = ("LIVEKIT_", "CONNECTOR_", "TWILIO_", "AGENT_", "PUBLIC_URL", "HOST", "PORT")


@dataclass(frozen=True)
class Program:
    language: str
    folder: Path
    argv: tuple[str, ...]


def _java(folder: Path, jar: str) -> tuple[str, ...]:
    # The virtual machine's quick compiler only: these run for a second.
    return ("java", "-XX:TieredStopAtLevel=1", "-cp", f"{folder}/target/{jar}:{folder}/target/lib/*", "MainKt")


CLIENTS = {
    program.language: program
    for program in (
        Program("python", HERE / "python", (sys.executable, str(HERE / "python" / "main.py"))),
        Program("node", HERE / "node", ("node", str(HERE / "node" / "main.js"))),
        Program("go", HERE / "go", (str(HERE / "go" / "build" / "conformance"),)),
        Program("kotlin", HERE / "kotlin", _java(HERE / "kotlin", "conformance-1.jar")),
        Program("rust", HERE / "rust", (str(RUST_BINARIES / "conformance"),)),
    )
}


def _webhook(language: str, *argv: str) -> Program:
    return Program(language, EXAMPLES / f"webhook-{language}", argv)


WEBHOOKS = {
    program.language: program
    for program in (
        _webhook("python", sys.executable, str(EXAMPLES / "webhook-python" / "main.py")),
        _webhook("node", "node", str(EXAMPLES / "webhook-node" / "main.js")),
        _webhook("go", str(EXAMPLES / "webhook-go" / "build" / "webhook-go")),
        _webhook("kotlin", *_java(EXAMPLES / "webhook-kotlin", "webhook-kotlin-1.jar")),
        _webhook("rust", str(RUST_BINARIES / "webhook-rust")),
    )
}


def build(program: Program, config: pytest.Config) -> None:
    """Build it unless that is done; the progress is shown. A missing tool fails, it never skips."""
    if program.language == "python":
        return
    command = [sys.executable, str(ROOT / "scripts" / "clients.py"), "build", str(program.folder)]
    deadline = time.monotonic() + BUILD_PATIENCE
    said: list[str] = []
    capture = config.pluginmanager.getplugin("capturemanager")
    with (
        capture.global_and_fixture_disabled(),
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process,
    ):
        assert process.stderr is not None
        # A build that runs says so every few seconds: the deadline is looked at often enough.
        for line in process.stderr:
            said.append(line)
            print(line, end="", file=sys.stderr, flush=True)
            if time.monotonic() > deadline:
                process.terminate()
    if process.returncode:
        pytest.fail(f"{program.language}: the program cannot be built\n{''.join(said[-60:])}", pytrace=False)


def environment(**settings: str) -> dict[str, str]:
    """This process's environment with no settings for a client, a server or an example but these."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    return kept | settings


async def run(program: Program, scenario: str, values: Mapping[str, str], settings: Mapping[str, str]) -> Any:
    """What the program printed: see README.md. An attribute's key is `attribute.<name>`."""
    process = await asyncio.create_subprocess_exec(
        *program.argv,
        scenario,
        *(f"{key}={value}" for key, value in values.items()),
        env=environment(**settings),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, complaints = await asyncio.wait_for(process.communicate(), RUN_PATIENCE)
    except BaseException:
        process.kill()
        await process.wait()
        raise
    assert process.returncode == 0, complaints.decode()
    (line,) = out.decode().splitlines()
    return json.loads(line)
