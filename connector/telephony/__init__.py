"""Clients for the carriers' REST APIs: place calls and hang up calls."""
