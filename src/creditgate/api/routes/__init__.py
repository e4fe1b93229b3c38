"""The RPC routes, a file for each resource: one small method a verb, body in, answer out. No web framework here."""
