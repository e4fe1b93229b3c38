"""The sockets that the sidecar listens on: one of TCP, and a unix socket if there is to be one."""

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from creditgate.errors import StartupError

OWNER_ONLY = 0o177  # what the mode of a unix socket is without
PROBE_S = 1.0


@contextlib.contextmanager
def listening_sockets(
    host: str, port: int, unix_socket: Path | None, *, open_to_network: bool = False
) -> Iterator[list[socket.socket]]:
    """Yield the sockets, that of TCP first. Raises StartupError, in one sentence, where it cannot listen.

    Where other machines could connect, it listens only if `open_to_network`: what they send is not encrypted.
    """
    if not open_to_network and not _is_loopback(host):
        raise StartupError(
            f"--host {host}: other machines could connect, without TLS; say --open-to-network if they shall."
        )
    with ExitStack() as opened:
        sockets = [opened.enter_context(closing(_tcp_socket(host, port)))]
        if unix_socket is not None:
            sockets.append(opened.enter_context(_unix_socket(unix_socket)))
        yield sockets


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _tcp_socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise StartupError(f"Cannot listen on {host}:{port}: {error.strerror}.") from error
    return listening


@contextlib.contextmanager
def _unix_socket(path: Path) -> Iterator[socket.socket]:
    """Yield a socket that only its owner may connect to, and remove its file in the end.

    One that a killed sidecar left behind is replaced; one that somebody listens on is not.
    """
    with closing(socket.socket(socket.AF_UNIX)) as listening:
        try:
            if path.is_socket():
                _remove_if_left_behind(path)
            _bind_for_owner(listening, path)
        except OSError as error:
            raise StartupError(f"Cannot listen on {path}: {error.strerror or error}.") from error
        made = path.stat()
        try:
            yield listening
        finally:
            with contextlib.suppress(OSError):
                if os.path.samestat(path.stat(), made):  # else another has taken its place
                    path.unlink()


def _bind_for_owner(listening: socket.socket, path: Path) -> None:
    """Bind; the file never has another mode, since a connection that was let in too early stays."""
    before = os.umask(OWNER_ONLY)
    try:
        listening.bind(str(path))
    finally:
        os.umask(before)


def _remove_if_left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
