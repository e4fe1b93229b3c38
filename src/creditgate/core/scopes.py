"""What an API key may be used for."""

from typing import Literal

# gate: check, track and hold; ingest: track alone; read: look, change nothing; admin: everything.
KeyScope = Literal["gate", "ingest", "read", "admin"]
