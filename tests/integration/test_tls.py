"""TLS to Redis and to SQL: a whole sidecar works over both, and a server that cannot prove who it is gets nothing.

The servers that tests start are built without TLS, so a relay in front of each has it.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import certifi
import pytest

from creditgate import openings
from creditgate.errors import StartupError
from creditgate.ledger.database import LedgerUnavailable
from creditgate.ledger.store import Ledger
from creditgate.settings import Settings
from tests.balances.relay import Relay
from tests.postgresql import PostgreSQLServer
from tests.sidecar_process import SidecarProcess, run

CERTIFICATE = Path(__file__).parents[1] / "balances" / "tls" / "localhost.pem"
STRANGERS = certifi.where()  # authorities who have not signed it
PASSWORD = "hush-hush"
SSL_REQUEST = (80877103).to_bytes(4, "big")


class PostgreSQLRelay(Relay):
    """In front of PostgreSQL, whose clients ask for TLS in eight bytes first; without a context they hear no."""

    def __init__(self, server: PostgreSQLServer, tls: ssl.SSLContext | None) -> None:
        super().__init__(f"{server.directory}/.s.PGSQL.5432")
        self._offered = tls

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        try:
            asked = await client_in.readexactly(8)
            assert asked[4:] == SSL_REQUEST, "a client that does without TLS"
            client_out.write(b"S" if self._offered else b"N")
            if self._offered is None:
                client_out.close()
                return
            await client_out.start_tls(self._offered)
        except (OSError, asyncio.IncompleteReadError):  # the client has hung up on us
            client_out.transport.abort()
            return
        await super()._serve(client_in, client_out)


@pytest.fixture
def tls() -> ssl.SSLContext:
    """What a server shows: a certificate for localhost, signed by itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@pytest.fixture
async def sql(postgresql: PostgreSQLServer, tls: ssl.SSLContext) -> AsyncIterator[PostgreSQLRelay]:
    """An empty PostgreSQL behind TLS."""
    postgresql.empty()
    async with PostgreSQLRelay(postgresql, tls) as relay:
        yield relay


@pytest.fixture
async def valkey(valkey_socket: str, tls: ssl.SSLContext) -> AsyncIterator[Relay]:
    """A Valkey behind TLS."""
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # of the relay that is hung up on
    async with Relay(valkey_socket, tls=tls) as relay:
        yield relay


async def test_a_whole_sidecar_over_tls(valkey: Relay, sql: PostgreSQLRelay) -> None:
    """Workers, the background process, migrations, the flusher and `verify` reach both servers over TLS alone."""
    servers = ["--redis", f"rediss://localhost:{valkey.port}?ssl_ca_certs={CERTIFICATE}"]
    servers += ["--database", _url(sql), "--prefix", "tls"]
    sidecar = SidecarProcess(arguments=["--demo", "--workers", "2", *servers])
    try:
        await asyncio.to_thread(sidecar.start)
        await asyncio.to_thread(sidecar.ask, "customers.get_or_create", {"customer_id": "ann"})
        use = {"customer_id": "ann", "feature_id": "basic_messages", "value": 2}
        await asyncio.to_thread(sidecar.ask, "balances.track", use)
        assert await asyncio.to_thread(sidecar.stop) == 0
        said = await asyncio.to_thread(run, "verify", "--data-dir", str(sidecar.directory), *servers)
        assert (said.returncode, said.stdout) == (0, "1 customers, 2 entries, 0 differences\n"), said.stderr
        assert valkey.scripts > 0
        assert sql.connections > 0
        assert PASSWORD not in (sidecar.directory / "log").read_text()
    finally:
        await asyncio.to_thread(sidecar.close)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sslrootcert": STRANGERS}, "certificate verify failed"),
        ({"host": "elsewhere.example", "hostaddr": "127.0.0.1"}, "does not match host name"),
    ],
    ids=["another authority", "another host"],
)
async def test_sql_that_cannot_prove_who_it_is(
    sql: PostgreSQLRelay, changes: dict[str, str], reason: str
) -> None:
    """Nothing is sent to it, not even the password; one sentence says why, and does not repeat the password."""
    await _is_refused(_url(sql, **changes), reason)
    assert not b"".join(sql.pieces)


async def test_sql_without_tls(postgresql: PostgreSQLServer) -> None:
    """Who requires TLS of a server that has none hears that, and is not connected without."""
    async with PostgreSQLRelay(postgresql, None) as relay:
        await _is_refused(_url(relay, sslmode="require"), "server does not support SSL")
        assert not b"".join(relay.pieces)


async def test_redis_that_cannot_prove_who_it_is(
    valkey: Relay, valkey_socket: str, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    """Of another authority, or under another name: one sentence that does not repeat the password, and nothing sent."""
    async with Relay(valkey_socket, host="127.0.0.2", tls=tls) as elsewhere:
        for relay, place, trusted in (
            (valkey, "localhost", STRANGERS),
            (elsewhere, "127.0.0.2", str(CERTIFICATE)),
        ):
            url = f"rediss://u:{PASSWORD}@{place}:{relay.port}?ssl_ca_certs={trusted}"
            with pytest.raises(StartupError) as refused:
                async with openings.open_data(Settings(data_dir=tmp_path, redis=url)):
                    pass
            assert "certificate verify failed" in refused.value.message
            assert PASSWORD not in refused.value.message
            assert not relay.pieces


def _url(relay: Relay, **changes: str) -> str:
    options = {"host": "localhost", "sslmode": "verify-full", "sslrootcert": str(CERTIFICATE)} | changes
    said = "&".join(f"{name}={value}" for name, value in {**options, "port": relay.port}.items())
    return f"postgresql://postgres:{PASSWORD}@/postgres?{said}"


async def _is_refused(url: str, reason: str) -> None:
    ledger = Ledger(url)
    try:
        with pytest.raises(LedgerUnavailable) as refused:
            await asyncio.to_thread(ledger.migrate)
    finally:
        ledger.close()
    assert refused.value.code == "service_unavailable"
    assert reason in refused.value.message
    assert PASSWORD not in refused.value.message
    assert "\n" not in refused.value.message
