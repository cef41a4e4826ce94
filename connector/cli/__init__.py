"""The `connector` command."""

from __future__ import annotations

import warnings

from jwt.warnings import InsecureKeyLengthWarning

from connector.cli.commands import app


def main() -> None:
    """Entry point of the console script."""
    # `connector doctor` says it once and in words; PyJWT would say it at every token.
    warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)
    app()


__all__ = ["main"]
