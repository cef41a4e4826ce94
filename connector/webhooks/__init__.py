"""Tells customers' servers what happens to their calls: signed, in order, until it is delivered or a day old."""
