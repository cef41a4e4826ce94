"""HTTP in: Twirp, the connect_url (answer document and media WebSocket), health and metrics."""
