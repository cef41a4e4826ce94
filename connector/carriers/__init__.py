"""What the carriers say and expect, one module each. Pure: text in, events out; commands in, text out."""
