"""ACME, the smallest carrier there can be: docs/adding-a-carrier.md walks through it, the contract suite holds it, and
tests/integration/test_acme.py makes a call through it.

Its stream has JSON messages and μ-law, its answer documents are JSON too, and a secret in a header says that a request
is its own.
"""
