"""Serves one of the peers as the sidecar serves itself: uvicorn with httptools and uvloop, no access log.

    python -m bench.peers baseline REDIS_URL ANSWER

Says its port on stdout. ANSWER is a real answer of the sidecar, for those that decide nothing.
"""

import importlib
import socket
import sys

import uvicorn


def main() -> None:
    """Serve until SIGTERM."""
    name, redis_url, answer = sys.argv[1:]
    app = importlib.import_module(f"bench.peers.{name}").make(redis_url, answer.encode())
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
    )
    with socket.create_server(("127.0.0.1", 0), backlog=config.backlog) as listening:
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
