"""What is written of a call, and what customers are told of it."""
