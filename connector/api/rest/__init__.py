"""The REST API under `/v2`, in the shapes of VideoSDK's SDKs."""
