"""LiveKit SIP's side of a phone number: inbound trunk and dispatch rule, over LiveKit's SIP API."""
