"""The connector's environment for the demo, the tests and the benchmark: a carrier, an agent, a LiveKit server."""
