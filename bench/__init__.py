"""`python -m bench` (`make bench`): latency and cost of the connector.

One run measures the connector and its baselines alternately on the same machine. Each part has its own process:
livekit-server, the connector, the echo agent (`bench.echo`), the telephones
(`bench.callers`) and the bare SDK loop (`bench.bare`). docs/performance.md explains the results.
"""
