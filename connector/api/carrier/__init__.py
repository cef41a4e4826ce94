"""What carriers ask: answer documents, webhooks, media WebSockets, status reports."""
