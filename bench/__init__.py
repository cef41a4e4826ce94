"""`python -m bench` (`make bench`): how fast the connector is, and what it costs.

Everything is measured in one run against baselines of the same machine and minute, in turn. Each part has a
process of its own: livekit-server, the connector, the echo agent (`bench.echo`), the telephones
(`bench.callers`) and the bare SDK loop (`bench.bare`). docs/performance.md says how to read the result.
"""
