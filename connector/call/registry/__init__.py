"""All calls: those of this process, and the way to those of others."""
