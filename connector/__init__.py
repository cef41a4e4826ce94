"""A telephony connector for self-hosted LiveKit: phone calls become participants of a room."""

__version__ = "0.1.0"
