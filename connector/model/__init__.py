"""The domain model: calls, end reasons, rules, connectors, webhooks, and the documents in the store."""
