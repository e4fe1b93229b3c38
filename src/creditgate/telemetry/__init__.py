"""What the process says of itself: logs (`logs.py`), and numbers (`metrics.py`, for Prometheus in `exposition.py`)."""

from creditgate.telemetry.logs import configure_logging, log_into_application, logger

__all__ = ["configure_logging", "log_into_application", "logger"]
