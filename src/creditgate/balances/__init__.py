"""Redis: keys, scripts, the store of current balances, the journal streams, the embedded server.

Owns the current balance and the atomic decisions. Does not own what plans mean, history, or when to try again.
"""
