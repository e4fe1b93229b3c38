"""How locks end, and what is said of them before."""

from collections.abc import Mapping

from creditgate.api.calls import Answer, Call, Verb, caller_key
from creditgate.api.routes.keys import RepeatedKeys
from creditgate.api.wire.answers import Success, encode
from creditgate.api.wire.fields import read
from creditgate.api.wire.holds import FinalizeRequest, ProgressAnswer, ProgressRequest, progress_answer
from creditgate.engine.holds import Holds


class HoldRoutes:
    """Locks are made by check and track."""

    def __init__(self, holds: Holds, keys: RepeatedKeys) -> None:
        self._holds = holds
        self._keys = keys

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {
            "balances.finalize": Verb(self.finalize, FinalizeRequest, Success),
            "balances.progress": Verb(self.progress, ProgressRequest, ProgressAnswer),
        }

    async def finalize(self, call: Call) -> Answer:
        request = read(FinalizeRequest, call.body)
        final, properties = request.final_nanos(), request.properties_text()
        key = caller_key("finalize", call, request.lock_id, final, properties)
        settling = self._holds.finalize(request.lock_id, final, properties=properties, key=key)
        is_replay = await self._keys.once(key, settling)
        return Answer(encode(Success()), headers=self._keys.headers(key, is_replay))

    async def progress(self, call: Call) -> Answer:
        """Saying it again changes nothing, so an idempotency key is not looked at."""
        request = read(ProgressRequest, call.body)
        held = await self._holds.progress(request.lock_id, request.used_nanos())
        return Answer(encode(progress_answer(held)))
