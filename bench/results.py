"""Where a bench writes what it measured."""

from pathlib import Path

RESULTS = Path(__file__).parent / "results"
