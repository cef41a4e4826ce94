"""One call from start to end. Knows carriers and rooms only by the protocols in `ports`."""
