"""The carriers' REST APIs: place a call, hang one up."""
