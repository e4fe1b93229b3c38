"""Ports for servers that cannot pick one themselves.

They are below those that the kernel gives to outgoing connections: a port that was just free would be taken by one of
them now and then, before the server is there.
"""

import random
import socket
from contextlib import ExitStack

_FIRST, _LAST = 15_000, 32_000


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    with ExitStack() as held:
        ports: list[int] = []
        while len(ports) < count:
            one = held.enter_context(socket.socket())
            port = random.randint(_FIRST, _LAST)
            try:
                one.bind(("127.0.0.1", port))
            except OSError:
                continue
            ports.append(port)
        return ports
