"""The `connector` command."""

from __future__ import annotations

from connector.cli.commands import app


def main() -> None:
    """Entry point of the console script."""
    app()


__all__ = ["main"]
