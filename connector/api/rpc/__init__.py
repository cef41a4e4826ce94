"""LiveKit's and our own RPCs, over Twirp and gRPC."""
