"""Serves one of the peers with uvicorn, no access log: with httptools, uvloop and hiredis, as the sidecar serves
itself; or plain, with what `pip install uvicorn redis` brings.

    python -m bench.peers baseline REDIS_URL ANSWER [plain]

Says its port on stdout. ANSWER is a real answer of the sidecar, for those that decide nothing.
"""

import importlib
import socket
import sys

import uvicorn


def main() -> None:
    """Serve until SIGTERM."""
    name, redis_url, answer, *plain = sys.argv[1:]
    if plain:
        sys.modules["hiredis"] = None  # type: ignore[assignment]  # as if it were not installed
    app = importlib.import_module(f"bench.peers.{name}").make(redis_url, answer.encode())
    config = uvicorn.Config(
        app,
        http="h11" if plain else "httptools",
        loop="asyncio" if plain else "uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
    # Of this protocol by name, or asyncio lets an answer in two parts wait for the client's delayed acknowledgement.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(config.backlog)
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
