"""Adapter to LiveKit: the server API (`admin`) and one participant's session (`gateway`, `media`)."""
