"""Writes the records of calls and reports their events to customers."""
