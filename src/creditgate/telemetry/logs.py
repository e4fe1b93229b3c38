"""Logs: one JSON object a line on stderr. Secrets and customers' data have no place in them."""

import logging
import sys
from typing import Any

import structlog

_SECRET_NAMES = frozenset({"authorization", "secret", "secret_key", "password", "token", "api_key"})


def configure_logging(level: int = logging.INFO) -> None:
    """Send structlog's and the standard library's records to stderr as JSON; call once, in `cli.py`."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    # At INFO the scheduler reports every tick, Alembic its plug-ins, and uvicorn what we announce ourselves.
    for name in ("apscheduler", "alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)


def logger(name: str) -> Any:
    """Return the logger of a module: `log.info("flushed", rows=12)`."""
    return structlog.stdlib.get_logger(name)


def _redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for name in event:
        if name.lower() in _SECRET_NAMES:
            event[name] = "[redacted]"
    return event
