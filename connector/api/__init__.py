"""HTTP and gRPC in: `rpc/`, `rest/`, `carrier/`, health and metrics (`ops`)."""
