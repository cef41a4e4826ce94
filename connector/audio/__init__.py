"""Sound as arrays of 16-bit samples. Pure: no I/O, no asyncio; the time is passed in."""
