"""The configuration of the embedded Valkey: nothing acknowledged is lost, nothing is evicted, nobody else gets in."""

import os
import re
from pathlib import Path

from creditgate.balances.memory import memory_limit_bytes

MEMORY_SHARE = 0.25
"""Of the machine's memory. The rest belongs to the application next to us, and rewriting the append-only file
forks the server: pages that change meanwhile exist twice, so the quarter can become a half."""

CONFIG = """\
# Written by creditgate at each start: what is changed here is lost.

# Reached over one socket, by the user who runs creditgate.
port 0
unixsocket {socket}
unixsocketperm 600
protected-mode yes
enable-debug-command no
enable-module-command no
enable-protected-configs no

# What was acknowledged is on the disk.
dir {directory}
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
aof-use-rdb-preamble yes
aof-load-truncated yes
auto-aof-rewrite-percentage 100
save ""

# A full memory refuses writes. It never forgets a balance to make room.
maxmemory {memory_bytes}
maxmemory-policy noeviction
lazyfree-lazy-expire yes

# A script that runs for so long has gone wrong: others hear BUSY instead of waiting for it.
lua-time-limit 5000
"""
"""Redis 7.0, which may be the server on PATH, knows every name here."""


def config_text(*, socket: Path, directory: Path) -> str:
    """Return the configuration file of a server that listens on the socket and keeps its data in the directory."""
    return CONFIG.format(
        socket=_quoted(socket),
        directory=_quoted(directory),
        memory_bytes=int(memory_limit_bytes() * MEMORY_SHARE),
    )


def _quoted(path: Path) -> str:
    """A path as the configuration file reads it, whatever bytes it has."""
    escaped = re.sub(rb'[^ -~]|["\\]', lambda found: b"\\x%02x" % found[0][0], os.fsencode(path))
    return f'"{escaped.decode()}"'
