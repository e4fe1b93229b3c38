"""Calls one method of a face of the gate, whether it is `async` or not."""

import asyncio
import inspect
from typing import Any

from creditgate.client.gate import AsyncFace, SyncFace


async def ask(face: AsyncFace | SyncFace, method: str, *args: Any, **fields: Any) -> Any:
    """Return what the method returns; raises what it raises."""
    function = getattr(face, method)
    if inspect.iscoroutinefunction(function):
        return await function(*args, **fields)
    return await asyncio.to_thread(function, *args, **fields)
