"""`python -m demo`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from rich.console import Console

from demo.providers import ACCOUNTS
from demo.run import Options, run


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo",
        description="A simulated phone call talks with a real agent in a real LiveKit room.",
    )
    parser.add_argument("--provider", choices=tuple(ACCOUNTS), default="twilio", help="the carrier to simulate")
    parser.add_argument(
        "--crash", action="store_true", help="two workers; the one that carries the call is killed, the other goes on"
    )
    parser.add_argument("--keep", action="store_true", help="keep all processes running after the call")
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="the folder for recordings")
    options = parser.parse_args()
    # On leaving a room the SDK warns of handles that it drops twice; we cannot change this.
    logging.getLogger("livekit").setLevel(logging.CRITICAL)
    sys.exit(asyncio.run(run(Options(options.out, options.keep, options.provider, options.crash), Console())))


if __name__ == "__main__":
    main()
