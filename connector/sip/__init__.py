"""Sets up a phone number in LiveKit SIP: inbound trunk and dispatch rule, over LiveKit's SIP API."""
