"""The audio path of one call, both ways."""
