"""Telephone numbers as ITU-T E.164 writes them: `+`, a country code that begins with 1 to 9, 15 digits at most."""

from __future__ import annotations

import re

E164 = re.compile(r"\+[1-9][0-9]{1,14}")
"""The least that a carrier is asked to dial."""
SUBSCRIBER = re.compile(r"\+[1-9][0-9]{6,14}")
"""Of a number that somebody owns: none is shorter."""
IN_TEXT = re.compile(r"\+\d{6,15}")
"""What looks like a number in the midst of something else."""
