"""The durable log: a small protocol, and its kinds."""
