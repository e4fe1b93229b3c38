"""open_batch.lua and close_batch.lua: a batch is in the journal and among the open ones, or in neither."""

from creditgate.balances.store import Written
from creditgate.core.decisions import Status
from creditgate.core.journal import ORIGIN, SYSTEM_PARTITION, Entry, StreamId
from tests.lua.harness import NEVER_TOO_LATE, World

MOST = 2


async def test_an_open_batch_is_in_the_journal(world: World) -> None:
    """Whoever looks for work finds the batch where its entry is, with the document as it was sent."""
    opened = await _open(world, "bat_1", document=b'[{"x":"a b"}]')
    assert (opened.status, opened.number) == (Status.OK, 1)
    assert await world.store.batches() == {"bat_1": opened.stream_id}
    (entry,) = await _entries(world)
    assert entry.stream_id == opened.stream_id
    assert (entry.customer_id, entry.sequence) == (None, 1)
    (item,) = entry.items
    assert (item.document_type, item.document_id, item.document) == ("batch", "bat_1", '[{"x":"a b"}]')


async def test_open_batches_come_in_their_order(world: World) -> None:
    """What was accepted first is worked off first, whatever the ids are."""
    for batch_id in ("bat_z", "bat_a"):
        await _open(world, batch_id)
    assert list(await world.store.batches()) == ["bat_z", "bat_a"]


async def test_a_closed_batch_is_gone_once(world: World) -> None:
    """Of two workers that close the same batch, one does; the other writes nothing."""
    await _open(world, "bat_1")
    await _open(world, "bat_2")
    closed = await _close(world, "bat_1")
    assert (closed.status, closed.number) == (Status.OK, 1)
    before = await world.everything()
    assert (await _close(world, "bat_1")).status is Status.MOVED_ON
    assert await world.everything() == before
    assert list(await world.store.batches()) == ["bat_2"]
    assert [(e.sequence, e.items[0].document) for e in await _entries(world)] == [
        (1, "[]"),
        (2, "[]"),
        (1, "{}"),
    ]


async def test_no_more_than_so_many_are_open(world: World) -> None:
    """A flood of batches is refused before it fills Redis; a key is not spent by the refusal."""
    for batch_id in ("bat_1", "bat_2"):
        await _open(world, batch_id)
    before = await world.everything()
    assert (await _open(world, "bat_3", key="aa")).status is Status.REFUSED
    assert await world.everything() == before
    await _close(world, "bat_1")
    assert (await _open(world, "bat_3", key="aa")).status is Status.OK


async def test_a_key_keeps_one_batch(world: World) -> None:
    """The key of a batch that was kept leads to its entry, also once the batch is closed or there is no room."""
    first = await _open(world, "bat_1", key="aa")
    await _open(world, "bat_2")
    before = await world.everything()
    again = await _open(world, "bat_3", key="aa")
    assert (again.status, again.stream_id) == (Status.REPLAYED, first.stream_id)
    assert (await _open(world, "bat_3", key="aa", fingerprint="ff")).status is Status.KEY_REUSED
    assert await world.everything() == before
    await _close(world, "bat_1")
    assert (await _open(world, "bat_3", key="aa")).status is Status.REPLAYED


async def test_what_comes_too_late_writes_nothing(world: World) -> None:
    """A call whose sender has given up on it has no effect any more."""
    await _open(world, "bat_1")
    before = await world.everything()
    assert (await _open(world, "bat_2", not_after=1)).status is Status.TOO_LATE
    assert (await _close(world, "bat_1", not_after=1)).status is Status.TOO_LATE
    assert await world.everything() == before


async def test_restoring_leaves_a_journal_alone_that_has_gone_on(world: World) -> None:
    """A sidecar that is late in filling Redis must not forget the batches that others have kept meanwhile."""
    opened = await _open(world, "bat_1")
    await world.store.restore_batches({"bat_9": StreamId(5, 0)}, stood_at=ORIGIN)
    assert await world.store.batches() == {"bat_1": opened.stream_id}
    assert opened.stream_id is not None
    await world.store.restore_batches({"bat_9": StreamId(5, 0)}, stood_at=opened.stream_id)
    assert await world.store.batches() == {"bat_9": StreamId(5, 0)}
    await world.store.restore_batches({}, stood_at=opened.stream_id)
    assert await world.store.batches() == {}


async def _open(
    world: World,
    batch_id: str,
    *,
    document: bytes = b"[]",
    key: str = "",
    fingerprint: str = "ee",
    not_after: int = NEVER_TOO_LATE,
) -> Written:
    call = world.call("batch_track", key=key, fingerprint=fingerprint if key else "")
    return await world.store.open_batch(
        not_after=not_after, call=call, batch_id=batch_id, document=document, most=MOST
    )


async def _close(world: World, batch_id: str, *, not_after: int = NEVER_TOO_LATE) -> Written:
    call = world.call("batch_close")
    return await world.store.close_batch(not_after=not_after, call=call, batch_id=batch_id, document=b"{}")


async def _entries(world: World) -> list[Entry]:
    return [entry async for entry in world.stream.tail(SYSTEM_PARTITION, ORIGIN)]
