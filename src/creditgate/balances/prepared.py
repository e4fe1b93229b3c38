"""Calls of scripts that may be packed once and sent many times: from one to the next, only the moment until which it
may take effect and its op id change, or nothing.
"""

from collections.abc import Sequence

from hiredis import pack_command

from creditgate.balances.scripts import Argument, Script
from creditgate.balances.wire import Call, Command
from creditgate.core import journal


class Prepared:
    """A call of a script that writes nothing: the same each time."""

    __slots__ = ("_arguments", "_packed", "keys", "record", "script")

    def __init__(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        self.script = script
        self.keys = keys
        self.record = keys[0]  # the customer's
        self._arguments = arguments
        self._packed = b""

    def pack(self) -> None:
        """Prepare for it to be sent again."""
        self._packed = pack_command(self.command(0, ""))

    def packed(self, _not_after: int, _op_id: str) -> bytes:
        """Return the command as Redis reads it; empty if it was never packed."""
        return self._packed

    def command(self, not_after: int, op_id: str) -> Command:
        """Return the command as a tuple."""
        return (*self._head(), *self.arguments(not_after, op_id))

    def arguments(self, _not_after: int, _op_id: str) -> Sequence[Argument]:
        """Return the arguments of the script."""
        return self._arguments

    def _head(self) -> Command:
        return ("EVALSHA", self.script.sha, len(self.keys), *self.keys)


class PreparedUse(Prepared):
    """A call of a script that takes `not_after`, the customer, and the call as the journal has it, before the rest.

    `call` has no op id; one that is sent has no character that JSON would escape.
    """

    __slots__ = ("_call", "_call_bytes", "_customer_id")

    def __init__(
        self,
        script: Script,
        keys: Sequence[str],
        customer_id: str,
        call: journal.Call,
        arguments: Sequence[Argument],
    ) -> None:
        super().__init__(script, keys, arguments)
        self._customer_id = customer_id
        self._call = call
        self._call_bytes = 0

    def packed(self, not_after: int, op_id: str) -> bytes:
        if not self._packed:
            return b""
        until, name = b"%d" % not_after, op_id.encode()
        return self._packed % (len(until), until, self._call_bytes + len(name), name)

    def arguments(self, not_after: int, op_id: str) -> Sequence[Argument]:
        return (not_after, self._customer_id, journal.encode_call(self._call.of(op_id)), *self._arguments)

    def pack(self) -> None:
        """Make the command with holes for `not_after` and the call's op id, each behind a hole for its length."""
        head, call = self._head(), journal.encode_call(self._call)
        self._call_bytes = len(call)
        before, after = call.split(b'""', 1)  # the first empty text is the op id
        pieces = [
            _literal(b"*%d\r\n" % (len(head) + 3 + len(self._arguments)), *map(_bulk, head)),
            b"$%d\r\n%b\r\n",
            _literal(_bulk(self._customer_id)),
            b"$%d\r\n",
            _literal(before, b'"'),
            b"%b",
            _literal(b'"', after, b"\r\n", *map(_bulk, self._arguments)),
        ]
        self._packed = b"".join(pieces)


class PreparedCall(Call):
    """One time that a prepared command is sent: until when it may take effect, its op id if it writes, and when it was
    sent, by `perf_counter`.
    """

    prepared: Prepared
    not_after: int
    op_id: str
    began: float

    def command(self) -> Command:
        return self.prepared.command(self.not_after, self.op_id)


def _bulk(argument: Argument) -> bytes:
    data = argument if isinstance(argument, bytes) else str(argument).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _literal(*texts: bytes) -> bytes:
    """Return what these are as a format."""
    return b"".join(texts).replace(b"%", b"%%")
