"""Tokens for web pages."""

from collections.abc import Mapping

from creditgate.api.calls import Answer, Call, Verb
from creditgate.api.wire.answers import encode
from creditgate.api.wire.fields import read
from creditgate.api.wire.tokens import MintAnswer, MintRequest
from creditgate.engine.customer_tokens import CustomerTokens


class TokenRoutes:
    """The one verb that mints them."""

    def __init__(self, tokens: CustomerTokens) -> None:
        self._tokens = tokens

    @property
    def by_verb(self) -> Mapping[str, Verb]:
        return {"keys.mint": Verb(self.mint, MintRequest, MintAnswer)}

    async def mint(self, call: Call) -> Answer:
        request = read(MintRequest, call.body)
        minted = self._tokens.mint(request.customer_id, key=call.key, lasts_ms=request.lasts_ms())
        return Answer(encode(MintAnswer(minted.text, minted.ends_at)))
