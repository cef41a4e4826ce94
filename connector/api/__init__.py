"""HTTP and gRPC servers: `rpc/`, `rest/`, `carrier/`, health and metrics (`ops`)."""
