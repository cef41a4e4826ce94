"""The `connector` command."""

from __future__ import annotations

import warnings

from jwt.warnings import InsecureKeyLengthWarning

from connector.cli.root_commands import app


def main() -> None:
    """Entry point of the console script."""
    # `connector doctor` reports it once, in plain words; PyJWT would warn at every token.
    warnings.filterwarnings("ignore", category=InsecureKeyLengthWarning)
    app()


__all__ = ["main"]
