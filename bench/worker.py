"""A child process with requests and responses as JSON lines: both ends of the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import IO, Any, Self

import uvloop

from demo.process import text_of

Handler = Callable[..., Awaitable[Any]]
_LONGEST_LINE = 64 * 1024 * 1024


class WorkerFailed(RuntimeError):
    """The worker ended, did not answer in time, or answered with an error."""


class Worker:
    """Use as `async with Worker("bench.echo") as echo`, then `await echo.ask("join", rooms=[…])`."""

    def __init__(self, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.name = module
        self._argv = [sys.executable, "-m", module, *arguments]
        self._env = dict(env) if env is not None else None
        self._process: asyncio.subprocess.Process | None = None
        self._errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the object

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=self._env,
            limit=_LONGEST_LINE,
            process_group=0,
        )
        return self

    async def ask(self, what: str, *, patience: float = 30.0, **arguments: Any) -> Any:
        """Sends a request and returns the result. Raises WorkerFailed unless it succeeds within `patience` seconds."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps({"what": what, "arguments": arguments}).encode() + b"\n")
        try:
            async with asyncio.timeout(patience):
                line = await process.stdout.readline()
        except TimeoutError:
            raise self._failed(f"did not answer {what!r} within {patience:g} s") from None
        if not line:
            raise self._failed(f"ended while it was asked {what!r}")
        answer = json.loads(line)
        if "error" in answer:
            raise self._failed(f"could not do {what!r}:\n{answer['error']}")
        return answer["result"]

    def _failed(self, why: str) -> WorkerFailed:
        printed = text_of(self._errors).splitlines()[-30:]
        return WorkerFailed("\n".join([f"{self.name} {why}", *printed]))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
        self._errors.close()


def run_worker(start: Callable[[], Awaitable[Mapping[str, Handler]]], *, loop: str = "uvloop") -> None:
    """The child's end: `start` runs in the event loop and returns the request handlers. Ends when stdin is closed."""
    runner = uvloop.run if loop == "uvloop" else asyncio.run
    runner(_answer(start))


async def _answer(start: Callable[[], Awaitable[Mapping[str, Handler]]]) -> None:
    answers = sys.stdout
    # Output that a library prints must not be mistaken for a response.
    sys.stdout = sys.stderr
    reader = asyncio.StreamReader(limit=_LONGEST_LINE)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    handlers = await start()
    # A full garbage collection would scan all imported objects and delay the operations being timed.
    gc.collect()
    gc.freeze()
    while line := await reader.readline():
        question = json.loads(line)
        try:
            answer = {"result": await handlers[question["what"]](**question["arguments"])}
        except Exception:
            answer = {"error": traceback.format_exc()}
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(answer), file=answers, flush=True)
    if "close" in handlers:
        await handlers["close"]()
