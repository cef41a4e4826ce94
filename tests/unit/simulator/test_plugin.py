"""The package by itself: the README's example, and the fixtures of the pytest plugin, without the connector."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[3] / "simulator" / "README.md"
# As in an environment that has only the simulator.
WITHOUT_THE_CONNECTOR = (
    "import sys\n\nfor name in ('connector', 'connectorpb', 'demo', 'livekit'):\n    sys.modules[name] = None\n"
)


def run_pytest(folder: Path, source: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text(WITHOUT_THE_CONNECTOR)
    (folder / "test_it.py").write_text(source)
    plugins = (*("-p", "pytest_carrier_simulator", "-p", "pytest_asyncio.plugin"), "-p", "no:cacheprovider")
    options = ("-o", "asyncio_mode=auto", *options)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(folder), *plugins, *options, "test_it.py"],
        cwd=folder,
        # The other plugins of this environment would be most of the work.
        env=os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_readmes_example_passes(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    done = run_pytest(tmp_path, example)
    assert (done.returncode, "1 passed" in done.stdout) == (0, True), done.stdout + done.stderr


def test_each_fixture_makes_its_simulator_and_a_seed_reaches_it(tmp_path: Path) -> None:
    source = """
import pytest

@pytest.mark.parametrize("name", ["twilio", "telnyx", "plivo"])
async def test_it(request, name):
    make = request.getfixturevalue(name + "_simulator")
    async with make() as first, make(jitter=None) as second:
        assert type(first).__name__.lower() == name + "simulator"
        assert first.base_url.startswith("http://127.0.0.1:")
        assert first.base_url != second.base_url
        assert (first.jitter.seed, second.jitter) == (7, None)
"""
    done = run_pytest(tmp_path, source, "--carrier-jitter=7")
    assert (done.returncode, "3 passed" in done.stdout) == (0, True), done.stdout + done.stderr
    assert "seed 7" in done.stdout


def test_a_simulator_that_is_left_running_is_an_error(tmp_path: Path) -> None:
    source = """
async def test_it(twilio_simulator):
    await twilio_simulator().start()
"""
    done = run_pytest(tmp_path, source)
    assert done.returncode == 1
    assert "still running after the test: TwilioSimulator" in done.stdout
