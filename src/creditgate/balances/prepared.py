"""Calls of scripts that may be packed once and sent many times: from one to the next, only the moment until which it
may take effect, its op id and the caller's key change, or nothing.
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
        """Return the command as Redis reads it; empty if it was not prepared for being sent again."""
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
    """A call of a script that takes `not_after`, the customer, the call as the journal has it, the caller's key and its
    fingerprint before the rest. This one has no key; `KeyedUse` is the same use with one.

    `call` has no op id. Op ids, keys and fingerprints have no character that JSON would escape.
    """

    __slots__ = ("_call_bytes", "_is_again", "_keyed", "bucket", "buckets", "call", "customer_id")

    def __init__(
        self,
        script: Script,
        keys: Sequence[str],
        customer_id: str,
        call: journal.Call,
        arguments: Sequence[Argument],
    ) -> None:
        super().__init__(script, keys, arguments)
        self.customer_id = customer_id
        self.call = call
        self.bucket: int | None = None  # in which the keys of now are kept, and all of them for now
        self.buckets: Sequence[str] = ()
        self._call_bytes = 0
        self._is_again = False
        self._keyed = b""

    def pack(self) -> None:
        self._is_again = True

    def packed(self, not_after: int, op_id: str) -> bytes:
        if not self._packed and self._is_again:
            self._packed = self._form(self._head(), is_keyed=False)
        until, name = b"%d" % not_after, op_id.encode()
        return self._packed and self._packed % (len(until), until, self._call_bytes + len(name), name)

    def packed_with(self, keyed: "KeyedUse", not_after: int, op_id: str) -> bytes:
        """As `packed`, of the same with a key."""
        if not self._keyed and self._is_again:
            self._keyed = self._form(keyed._head(), is_keyed=True)
        until, name = b"%d" % not_after, op_id.encode()
        key, fingerprint = keyed.key.encode(), keyed.fingerprint.encode()
        sizes = len(key), len(fingerprint)
        call_bytes = self._call_bytes + len(name) + sizes[0] + sizes[1]
        changing = (len(until), until, call_bytes, name, key, fingerprint)
        return self._keyed and self._keyed % (*changing, sizes[0], key, sizes[1], fingerprint)

    def arguments(self, not_after: int, op_id: str) -> Sequence[Argument]:
        return self.arguments_of(self.call.of(op_id), not_after)

    def arguments_of(self, call: journal.Call, not_after: int) -> Sequence[Argument]:
        """Return the arguments for this call in place of our own."""
        encoded = journal.encode_call(call)
        return (not_after, self.customer_id, encoded, call.key, call.fingerprint, *self._arguments)

    def remember(self, bucket: int, buckets: Sequence[str]) -> None:
        """Take other buckets: keys are kept there by now."""
        self.bucket, self.buckets, self._keyed = bucket, buckets, b""

    def _form(self, head: Command, *, is_keyed: bool) -> bytes:
        """Return the command that begins so, with holes for what changes, and for its length: `not_after`, the op id,
        and with `is_keyed` the key and the fingerprint.
        """
        call = journal.encode_call(self.call)
        self._call_bytes = len(call)
        verb, version, comma, rest = call.split(b'""', 3)  # the first empty texts: op id, key and fingerprint
        digest, argument = (b"%b", b"$%d\r\n%b\r\n") if is_keyed else (b"", _bulk(""))
        pieces = [
            _literal(b"*%d\r\n" % (len(head) + 5 + len(self._arguments)), *map(_bulk, head)),
            b"$%d\r\n%b\r\n",
            _literal(_bulk(self.customer_id)),
            b"$%d\r\n",
            _literal(verb, b'"'),
            b"%b",
            _literal(b'"', version, b'"'),
            digest,
            _literal(b'"', comma, b'"'),
            digest,
            _literal(b'"', rest, b"\r\n"),
            argument,
            argument,
            _literal(*map(_bulk, self._arguments)),
        ]
        return b"".join(pieces)


class KeyedUse(Prepared):
    """A use with a caller's key, which is sent once: good for now, not for later."""

    __slots__ = ("_use", "fingerprint", "key")

    def __init__(self, use: PreparedUse, key: str, fingerprint: str) -> None:
        super().__init__(use.script, (*use.keys, *use.buckets), ())
        self.key = key
        self.fingerprint = fingerprint
        self._use = use

    def packed(self, not_after: int, op_id: str) -> bytes:
        return self._use.packed_with(self, not_after, op_id)

    def arguments(self, not_after: int, op_id: str) -> Sequence[Argument]:
        call = self._use.call.keyed(self.key, self.fingerprint)
        return self._use.arguments_of(call.of(op_id), not_after)


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

    def packed(self) -> bytes:
        return self.prepared.packed(self.not_after, self.op_id) or super().packed()


def _bulk(argument: Argument) -> bytes:
    data = argument if isinstance(argument, bytes) else str(argument).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)


def _literal(*texts: bytes) -> bytes:
    """Return what these are as a format."""
    return b"".join(texts).replace(b"%", b"%%")
