"""gRPC as every service speaks it: `server` for the life cycle, `client` for calls between services."""
