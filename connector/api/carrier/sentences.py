"""Sentences that callers hear before a call streams."""

from __future__ import annotations

SORRY = "We are sorry, this call cannot be connected. Goodbye."
ASK_PIN = "Please enter your PIN, followed by the pound key."
WRONG_PIN = "That PIN is not correct. Please try again."
NO_MORE_TRIES = "That PIN is not correct. Goodbye."
