"""Delivers call events to customers' servers: signed, in order, retried until delivered or a day old."""
