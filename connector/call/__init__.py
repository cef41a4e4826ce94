"""Calls, from start to end. They know carriers and rooms only by the protocols in `ports`."""
