"""The errors of creditgate: each carries a stable `code` and says what to do next.

A refusal ("not enough credits") is a value, `core.decisions.Decision`. An exception means that the caller asked for
something that makes no sense, or that we could not decide. `api/problems.py` maps these classes to HTTP in one table.
"""


class CreditgateError(Exception):
    """Base of all errors raised on purpose; `code` is part of the public contract and never changes its meaning."""

    code = "internal_error"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class InvalidInputs(CreditgateError):
    """The shape or a value of the request is wrong; nothing was changed."""

    code = "invalid_inputs"


class InvalidRequest(CreditgateError):
    """The request is well formed but breaks a rule, or asks for something that is not built; nothing was changed."""

    code = "invalid_request"


class InsufficientBalance(InvalidRequest):
    """A track that takes all or nothing was more than the customer can afford; nothing was taken."""

    code = "insufficient_balance"


class NotFound(CreditgateError):
    """The customer, feature, plan or other thing that was named does not exist."""

    code = "not_found"


class Conflict(CreditgateError):
    """What was asked for collides with what is already there; nothing was changed."""

    code = "conflict"


class KeyReused(CreditgateError):
    """An idempotency key came back with other parameters; nothing was changed."""

    code = "idempotency_key_reused"


class Undecided(CreditgateError):
    """Redis did not answer in time, so we do not know: neither allowed nor denied. Retry with an idempotency key."""

    code = "undecided"
    idempotency_key: str | None = None  # what the call was sent with, where a client of ours made it


class Unavailable(CreditgateError):
    """A part that this call needs is down; nothing is known to be wrong with the request. Retry later."""

    code = "service_unavailable"


class Unauthorized(CreditgateError):
    """A client of ours has not the right key."""

    code = "invalid_secret_key"


class StartupError(CreditgateError):
    """The process cannot start; the message is one sentence for the person at the terminal."""

    code = "startup_failed"
