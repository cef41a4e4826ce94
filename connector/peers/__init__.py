"""Requests from one process of the service to another."""
