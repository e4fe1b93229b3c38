"""The use cases, where balances and ledger meet: each call is resolved, decided once, and accounted for.

Owns the sequence of things. Does not own SQL text, key names or HTTP codes.
"""
