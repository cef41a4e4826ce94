"""The life of one call: its stream, its place in a room, its watchdog, its end."""
