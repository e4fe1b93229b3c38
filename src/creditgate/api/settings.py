"""What the API is told about the environment it answers for."""

from typing import Literal

import msgspec


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True):
    """`allowed_hosts` are the names it answers to, `*` for any; `allowed_origins` are those of the web pages that may
    ask with a customer's token; `public_url` is what payment links begin with, where
    that is not how the caller reached us; `zero_member_rows` is explained in `wire/customers.py`.
    """

    env: Literal["test", "live"]
    idempotency: Literal["replay", "autumn"] = "replay"
    allowed_hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "[::1]")
    allowed_origins: tuple[str, ...] = ()
    public_url: str | None = None
    zero_member_rows: bool = True

    @property
    def env_on_wire(self) -> str:
        """Autumn's word for it."""
        return "sandbox" if self.env == "test" else "live"

    @property
    def refuses_repeated_keys(self) -> bool:
        return self.idempotency == "autumn"
