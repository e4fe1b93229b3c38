"""Logs: one JSON object a line on stderr. Secrets and customers' data have no place in them.

What is logged names an id at most. That no secret slips in with an error's text, its traceback or a library's own
message is `_redact`'s business, which every line passes.
"""

import logging
import re
import sys
from typing import Any

import structlog

_SECRET_NAMES = frozenset({"authorization", "secret", "secret_key", "password", "token", "api_key"})
_REDACTED = "[redacted]"
_SECRETS_IN_TEXT = (
    (re.compile(r"\b((?:cg|am)_[a-z]+_)[\w-]+"), rf"\1{_REDACTED}"),  # API keys, Autumn's too
    (re.compile(r"(?i)\b(bearer) [^\s'\"]+"), rf"\1 {_REDACTED}"),
    (re.compile(r"(://[^\s:@/'\"]*):[^\s@/'\"]+@"), rf"\1:{_REDACTED}@"),  # the password of a URL
    (re.compile(r"(/checkout/)[\w.-]+"), rf"\1{_REDACTED}"),  # whoever has the link may pay
)


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
    logging.captureWarnings(True)  # else Python writes them to stderr in lines of its own
    # At INFO the scheduler reports every tick, Alembic its plug-ins, and uvicorn what we announce ourselves.
    for name in ("apscheduler", "alembic", "uvicorn"):
        logging.getLogger(name).setLevel(logging.WARNING)


def log_into_application() -> None:
    """Hand our records to the standard library's logging, for an application that has not set up structlog itself.

    Unasked, structlog writes to stdout, which is the application's.
    """
    if not structlog.is_configured():
        structlog.configure(
            processors=[
                structlog.stdlib.filter_by_level,
                structlog.processors.format_exc_info,
                _redact,
                structlog.processors.KeyValueRenderer(key_order=["event"]),
            ],
            logger_factory=structlog.stdlib.LoggerFactory(),
        )


def logger(name: str) -> Any:
    """Return the logger of a module: `log.info("flushed", rows=12)`."""
    return structlog.stdlib.get_logger(name)


def _redact(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    return {
        name: _REDACTED if name.lower() in _SECRET_NAMES else _clean(value) for name, value in event.items()
    }


def _clean(value: Any) -> Any:
    match value:
        case str():
            for pattern, replacement in _SECRETS_IN_TEXT:
                value = pattern.sub(replacement, value)
            return value
        case dict():
            return _redact(None, "", value)
        case list() | tuple():
            return [_clean(part) for part in value]
        case _:
            return value
