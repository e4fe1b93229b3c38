"""put.lua on a real Valkey: documents that belong to no customer, one version after the other."""

import asyncio

import pytest

from creditgate.balances.store import Written
from creditgate.core.decisions import Status
from creditgate.core.journal import ORIGIN, SYSTEM_PARTITION, Call, Kind
from tests.lua.harness import NEVER_TOO_LATE, World


async def put(
    world: World,
    document: bytes,
    *,
    version: int,
    document_type: str = "catalog",
    document_id: str = "-",
    call: Call | None = None,
    not_after: int = NEVER_TOO_LATE,
) -> Written:
    """Put one document over this version."""
    return await world.store.put(
        not_after=not_after,
        call=call or world.call("put"),
        document_type=document_type,
        document_id=document_id,
        expected_version=version,
        document=document,
    )


async def test_versions_follow_each_other(world: World) -> None:
    """Each write makes the next version of its type, can be read back, and is an entry of the system's journal."""
    first, second = b'{"features": []}', '{"name": "a b  c ü"}'.encode()
    assert (await put(world, first, version=0)).number == 1
    written = await put(world, second, version=1)
    assert (written.status, written.number) == (Status.OK, 2)
    assert await world.store.documents("catalog") == (2, {"-": second})
    assert await world.store.documents_version("catalog") == 2
    entries = [entry async for entry in world.stream.tail(SYSTEM_PARTITION, ORIGIN)]
    assert [(entry.sequence, entry.customer_id, entry.uid) for entry in entries] == [
        (1, None, None),
        (2, None, None),
    ]
    assert entries[1].stream_id == written.stream_id
    (item,) = entries[1].items
    assert (item.kind, item.document_type, item.document_id) == (Kind.PUT, "catalog", "-")
    assert item.document == second.decode()


async def test_types_have_versions_of_their_own(world: World) -> None:
    """A new API key does not make a catalog out of date."""
    await put(world, b"{}", version=0)
    assert (await put(world, b"{}", version=0, document_type="api_key", document_id="k1")).number == 1
    assert (await put(world, b"[]", version=1, document_type="api_key", document_id="k2")).number == 2
    assert await world.store.documents("api_key") == (2, {"k1": b"{}", "k2": b"[]"})
    assert await world.store.documents("catalog") == (1, {"-": b"{}"})
    assert await world.store.documents("none") == (0, {})


@pytest.mark.parametrize("version", [0, 2, 7])
async def test_other_version_is_refused(world: World, version: int) -> None:
    """Whoever worked from another version is told so, and nothing is written over what he did not see."""
    await put(world, b"{}", version=0)
    before = await world.everything()
    assert (await put(world, b"[]", version=version)).status is Status.MOVED_ON
    assert await world.everything() == before


async def test_two_writers_at_once(world: World) -> None:
    """Of writers who started from the same version one wins; the others can read again and lose nothing."""
    written = await asyncio.gather(*(put(world, b"{}", version=0) for _ in range(10)))
    assert sorted(w.status for w in written) == [Status.MOVED_ON] * 9 + [Status.OK]


async def test_replay(world: World) -> None:
    """A repeated key answers with the first entry and the version as it is now, and writes nothing."""
    call = world.call("put", key="aa", fingerprint="bb")
    first = await put(world, b"{}", version=0, call=call)
    await put(world, b"[]", version=1)
    before = await world.everything()
    again = await put(world, b"{}", version=0, call=call)
    assert (again.status, again.number, again.stream_id) == (Status.REPLAYED, 2, first.stream_id)
    other = await put(world, b"{}", version=2, call=world.call("put", key="aa", fingerprint="cc"))
    assert other.status is Status.KEY_REUSED
    assert await world.everything() == before


async def test_too_late(world: World) -> None:
    """After its deadline a write has no effect."""
    assert (await put(world, b"{}", version=0, not_after=1)).status is Status.TOO_LATE
    assert await world.everything() == world.nothing
