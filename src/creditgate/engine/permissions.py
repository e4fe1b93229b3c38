"""What creditgate needs of a Redis that others use too: a user with these commands, on its own keys alone.

The server checks what scripts call as well. SCAN tells the names of others' keys; nothing can be done with them.
"""

# By what they are for: to connect, to look at the server, to run scripts, to read and write.
CONNECTING = ("ping", "hello", "select", "client|setname", "client|setinfo")
LOOKING = ("info", "time", "config|get", "scan")
RUNNING = ("evalsha", "eval", "multi", "exec", "watch", "unwatch")
READING = (
    *("get", "exists", "pttl", "hget", "hmget", "hgetall", "hlen", "hexists", "zscore", "zrange"),
    *("xlen", "xrange", "xread", "xinfo|stream"),
)
WRITING = (
    *("set", "del", "unlink", "pexpire", "hset", "hdel", "zadd", "zrem"),
    *("xadd", "xdel", "xtrim", "xgroup|create", "xgroup|destroy"),
)
IN_A_CLUSTER = ("asking", "readonly", "cluster|info", "cluster|shards")

COMMANDS = (*CONNECTING, *LOOKING, *RUNNING, *READING, *WRITING, *IN_A_CLUSTER)


def acl_line(prefix: str) -> str:
    """Return the command that makes the user, for `redis-cli`; PASSWORD is for the operator to put in."""
    commands = " ".join(f"+{command}" for command in COMMANDS)
    return f"ACL SETUSER creditgate reset on >PASSWORD resetchannels ~{prefix}:* -@all {commands}"
