"""Small wrong versions of what decides about credits, and the tests that have to see each of them.

Each is one piece of text in one file, replaced by another. `make mutants` tries them all; a mutant that survives is a
test that is missing.
"""

from typing import NamedTuple


class Mutant(NamedTuple):
    """What is wrong; the file, the text that stands there once, and what stands there instead; arguments of pytest."""

    wrong: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


_AMOUNTS = ("tests/core/test_amounts.py", "tests/property/test_amounts.py")
_LUA = "tests/lua"
_ENGINE = "tests/engine"
_TOKENS = ("tests/integration/test_customer_tokens.py",)
_SEALS = ("tests/conformance/test_ledger_sqlite.py", "-k", "Seals")

MUTANTS = (
    # amounts
    Mutant(
        "a cost that does not divide is rounded toward zero in Lua",
        "lua/lib/amount.lua",
        "if result and string.find(dropped, '[1-9]') then",
        "if false then",
        _AMOUNTS,
    ),
    Mutant(
        "a cost that does not divide is rounded toward zero in Python",
        "src/creditgate/core/amounts.py",
        "rounded = -(-product // NANOS)",
        "rounded = product // NANOS",
        _AMOUNTS,
    ),
    Mutant(
        "the units that credits pay for are rounded down",
        "lua/lib/amount.lua",
        "if rest ~= 0 then return amount.add(units, 1) end",
        "",
        _AMOUNTS,
    ),
    Mutant(
        "a sum past 2^52 stays a double",
        "lua/lib/amount.lua",
        "if sum > 0 - SMALL and sum < SMALL then return sum end",
        "if true then return sum end",
        _AMOUNTS,
    ),
    Mutant(
        "what follows a number is ignored",
        "src/creditgate/core/amounts.py",
        "_NUMBER.fullmatch(token)",
        "_NUMBER.match(token)",
        _AMOUNTS,
    ),
    Mutant(
        "NaN and infinity are amounts",
        "src/creditgate/core/amounts.py",
        "if not number.is_finite() or (",
        "if (",
        ("tests/core/test_amounts.py", "tests/core/test_catalog_file.py"),
    ),
    # how rows give and get
    Mutant(
        "cap goes below zero as overflow does",
        "lua/lib/burn.lua",
        "if mode == 'overflow' or row.floor == '~'",
        "if mode ~= 'reject' or row.floor == '~'",
        (f"{_LUA}/test_track.py",),
    ),
    Mutant(
        "a refund fills a row above what it was granted",
        "lua/lib/burn.lua",
        "mode == 'overflow' and without_ceiling or up_to_ceiling",
        "without_ceiling",
        (f"{_LUA}/test_track.py",),
    ),
    Mutant(
        "reject keeps what there was",
        "lua/lib/burn.lua",
        "for i = 1, #list do list[i].balance = list[i].before end\n    return false",
        "return true",
        (f"{_LUA}/test_track.py",),
    ),
    Mutant(
        "a usage limit counts each unit twice",
        "lua/lib/burn.lua",
        "amount.subtract(gates[i].before, pools[p].taken)",
        "amount.subtract(gates[i].before, amount.add(pools[p].taken, pools[p].taken))",
        (f"{_LUA}/test_limits.py",),
    ),
    Mutant(
        "a spend limit is ignored",
        "lua/lib/burn.lua",
        "if pool.spend then pool.spare = spared(pool.spend, list, p) end",
        "pool.spare = nil",
        (f"{_LUA}/test_limits.py",),
    ),
    Mutant(
        "rows give in the order of their features, not in burn order",
        "lua/lib/rows.lua",
        "if not is_sorted then table.sort(list, by_rank_then_position) end",
        "",
        (f"{_LUA}/test_track.py", f"{_LUA}/test_check.py"),
    ),
    # what a script decides before it writes
    Mutant(
        "an instant that is due is only due after it",
        "lua/lib/record.lua",
        "record.now >= record.due",
        "record.now > record.due",
        (f"{_LUA}/test_forward.py", f"{_LUA}/test_steps.py", f"{_LUA}/test_check.py"),
    ),
    Mutant(
        "what fell due is not answered",
        "lua/lib/record.lua",
        "then return record, STATUS.DUE end",
        "then return record, nil end",
        (f"{_LUA}/test_forward.py",),
    ),
    Mutant(
        "a call takes effect after its deadline",
        "lua/lib/record.lua",
        "if not_after and record.time > not_after then",
        "if false then",
        (f"{_LUA}/test_change.py", "-k", "too_late"),
    ),
    Mutant(
        "a customer is stepped forward from what somebody read before",
        "lua/forward.lua",
        " or record.seq ~= expected_sequence then",
        " then",
        (f"{_LUA}/test_forward.py",),
    ),
    Mutant(
        "a change of rows holds for whatever rows there are",
        "lua/change.lua",
        "(record.uid ~= uid or record.shape ~= expected_shape)",
        "(record.uid ~= uid)",
        (f"{_LUA}/test_change.py",),
    ),
    Mutant(
        "an exact change holds though something was tracked since",
        "lua/change.lua",
        "if expected_sequence ~= '' and record.seq ~= tonumber(expected_sequence) then",
        "if false then",
        (f"{_LUA}/test_change.py",),
    ),
    Mutant(
        "a reset drops what is left without a word in the journal",
        "lua/lib/change.lua",
        "journal.expire(entry, row_id, balance, false)",
        "",
        (f"{_LUA}/test_forward.py",),
    ),
    Mutant(
        "the journal is written after the record",
        "lua/track.lua",
        "local stream_id = journal.append(JOURNAL, entry) -- first: the one write that could still meet a key of"
        " another type\nredis.call('HSET', RECORD, unpack(changes))",
        "redis.call('HSET', RECORD, unpack(changes))\nlocal stream_id = journal.append(JOURNAL, entry)",
        (f"{_LUA}/test_faults.py", "-k", "wrong_type or journal_that_is_gone"),
    ),
    Mutant(
        "a server that lost its data begins a journal of its own",
        "lua/lib/journal.lua",
        "'XADD', stream, 'NOMKSTREAM', '*'",
        "'XADD', stream, '*'",
        (f"{_LUA}/test_faults.py", "-k", "journal_that_is_gone"),
    ),
    # merged calls
    Mutant(
        "a merged call does not find what those before it took",
        "lua/merged.lua",
        "  shapes.keep(call.shape)\n",
        "",
        ("tests/lua/test_merged.py",),
    ),
    Mutant(
        "what a merged call is refused stays in the entry of the others",
        "lua/merged.lua",
        "    journal.rewind(entry, fields, items)\n",
        "",
        ("tests/lua/test_merged.py",),
    ),
    Mutant(
        "a key is new to a merged call, though one before it used it",
        "lua/merged.lua",
        "  if call.key ~= '' then used[call.key] = call end\n",
        "",
        ("tests/lua/test_merged.py",),
    ),
    Mutant(
        "a replay answers with all that moved in the entry of its first call",
        "src/creditgate/engine/meter.py",
        "items = list(entry.items_of(op_id))",
        "items = list(entry.items)",
        ("tests/engine/test_merging.py",),
    ),
    # the short way of the usual calls
    Mutant(
        "a usual track takes all that a row holds, and tells of no limit",
        "lua/lib/tracking.lua",
        "if balance > need + 0 then",
        "if balance >= need + 0 then",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "a row pays though one before it still holds something",
        "lua/lib/tracking.lua",
        "    if balance > 0 then return nil end\n",
        "",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "a check is refused though a row could go below zero",
        "lua/lib/checking.lua",
        "if found.stops then",
        "if true then",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "rows that give only after the others give in their turn",
        "lua/lib/usual.lua",
        "'^%d%d?%d?:([^:%s]+)",
        "'^%d+:([^:%s]+)",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "what rolled over is taken like any other row",
        "lua/lib/usual.lua",
        "floor == '^' or ",
        "",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "balances that a double does not hold are added up as doubles",
        "lua/lib/usual.lua",
        "if #balances[i] > DIGITS_MAX then return nil end",
        "",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "rows of two pools are usual",
        "lua/lib/usual.lua",
        "if read and order then return nil end",
        "",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "calls of other features go as the first",
        "lua/lib/alike.lua",
        "if ARGV[i] ~= ARGV[i - size] or ",
        "if ",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "a key is not looked for where several go as one",
        "lua/lib/keys.lua",
        "if found[k] then return false end",
        "",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "a key that two of several have takes twice",
        "lua/lib/keys.lua",
        "if used[key] or not",
        "if not",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "the keys of several are not kept",
        "lua/lib/alike.lua",
        "    keys.keep_all(buckets, used, record.uid, stream_id)\n",
        "",
        (f"{_LUA}/test_usual.py",),
    ),
    Mutant(
        "what comes too late takes where several go as one",
        "lua/lib/alike.lua",
        "or record.time > not_after or",
        "or",
        (f"{_LUA}/test_usual.py",),
    ),
    # keys of callers
    Mutant(
        "a key that comes back with other parameters is a replay",
        "lua/lib/keys.lua",
        "if before ~= fingerprint then",
        "if false then",
        (f"{_LUA}/test_keys.py",),
    ),
    Mutant(
        "a key of whoever had the id before is one of this customer",
        "lua/lib/keys.lua",
        "(owner == uid or uid == keys.ANYBODY) and",
        "",
        (f"{_LUA}/test_keys.py", f"{_LUA}/test_delete.py", f"{_ENGINE}/test_deletion.py"),
    ),
    Mutant(
        "a key is remembered for as long as its bucket",
        "lua/lib/keys.lua",
        "time - tonumber(ms) < KEY_TTL_MS",
        "true",
        (f"{_LUA}/test_keys.py",),
    ),
    Mutant(
        "a call is not looked for before it is sent again",
        "src/creditgate/engine/attempts.py",
        "if stream_id is not None:",
        "if False:",
        (f"{_ENGINE}/test_attempts.py",),
    ),
    # what goes at once
    Mutant(
        "a reply from other terms is answered as the one before",
        "src/creditgate/balances/usage.py",
        "(raw[4], raw[6], raw[7::2]) if raw[0] == _OK",
        "(raw[6],) if raw[0] == _OK",
        (f"{_ENGINE}/test_at_once.py",),
    ),
    Mutant(
        "what a row gives is answered as what it gave before",
        "src/creditgate/api/routes/askers.py",
        "form.filled(amount, balances, deltas)",
        "form.filled(amount, balances, [x.delta_nanos for x in repeated.decision.moved])",
        (f"{_ENGINE}/test_at_once.py",),
    ),
    Mutant(
        "a call that was sent is sent again under another op id",
        "src/creditgate/engine/meter.py",
        "began, op_id = asked.begun.call.began, asked.begun.call.op_id",
        "began, op_id = asked.begun.call.began, self._op_ids.next()",
        (f"{_ENGINE}/test_at_once.py",),
    ),
    Mutant(
        "the first attempt is forgotten, and the call sent anew",
        "src/creditgate/engine/meter.py",
        "reply = await self._attempts.write(partition, op_id, send_once, first)",
        "reply = await self._attempts.write(partition, op_id, send_once)",
        (f"{_ENGINE}/test_at_once.py",),
    ),
    Mutant(
        "who does not read an answer is decided for all the same",
        "src/creditgate/api/fastlane.py",
        "self._is_at_rest = cycle.keep_alive and not self.flow.write_paused",
        "self._is_at_rest = cycle.keep_alive",
        ("tests/api/test_fastlane_turns.py",),
    ),
    Mutant(
        "the key of the first request is that of all with the same head",
        "src/creditgate/api/fastlane.py",
        "request = replace(request, idempotency_keys=())",
        "pass",
        ("tests/api/test_fastlane_turns.py",),
    ),
    Mutant(
        "a reply that comes too late ends a call a second time",
        "src/creditgate/balances/wire.py",
        "if self._expired:  # its wait is over",
        "if False:",
        (f"{_ENGINE}/test_at_once.py",),
    ),
    Mutant(
        "a call goes with one that has ended, which nobody sends",
        "src/creditgate/balances/hot_connection.py",
        "self._joinable.clear()  # nothing may go with what has ended",
        "pass",
        (f"{_ENGINE}/test_at_once.py",),
    ),
    Mutant(
        "what was worked out by an older catalog is sent",
        "src/creditgate/engine/at_once.py",
        "means is None or means.catalog is not self._catalogs.current or means.prepared is None",
        "means is None or means.prepared is None",
        (f"{_ENGINE}/test_at_once.py",),
    ),
    Mutant(
        "a call that failed holds on to who waited, and nobody can forget it",
        "src/creditgate/engine/at_once.py",
        "done, self.done = self.done, _nobody",
        "done = self.done",
        (f"{_ENGINE}/test_at_once.py",),
    ),
    Mutant(
        "a key is forgotten where a call goes at once",
        "src/creditgate/api/routes/askers.py",
        "msgspec.structs.replace(self.usage, key=key)",
        "self.usage",
        (f"{_ENGINE}/test_at_once.py",),
    ),
    Mutant(
        "a repeated key that went at once is answered as the first",
        "src/creditgate/api/routes/meter.py",
        "tracked = self._once(usage.key, taking)",
        "tracked = _plainly(taking)",
        (f"{_ENGINE}/test_at_once.py",),
    ),
    Mutant(
        "what takes goes together with a check before it",
        "src/creditgate/api/routes/in_order.py",
        "and (self._may_take or not item.wanted.takes)",
        "",
        (f"{_ENGINE}/test_in_order.py",),
    ),
    Mutant(
        "an item of a batch goes on before those that it stands behind",
        "src/creditgate/api/routes/in_order.py",
        "self._line.wait(self._item, done, partial(self._asker.further, asked, done))",
        "self._asker.further(asked, done)",
        (f"{_ENGINE}/test_in_order.py",),
    ),
    # holds
    Mutant(
        "what was taken first comes back first",
        "lua/lib/receipt.lua",
        "for i = 1, #hold.legs do\n    local leg = hold.legs[i]\n    if left ~= 0",
        "for i = #hold.legs, 1, -1 do\n    local leg = hold.legs[i]\n    if left ~= 0",
        (f"{_LUA}/test_settle.py",),
    ),
    Mutant(
        "what was held in another period comes back to this one",
        "lua/lib/settling.lua",
        "if row and row.period ~= leg.period and row.period ~= '-' then",
        "if false then",
        (f"{_LUA}/test_settle.py",),
    ),
    Mutant(
        "a hold that expires first is not what is due next",
        "lua/hold.lua",
        "local is_next_due = not record.due or hold.expires_at < record.due",
        "local is_next_due = not record.due",
        (f"{_LUA}/test_hold.py",),
    ),
    Mutant(
        "a hold expires after its instant, not at it",
        "src/creditgate/core/holds.py",
        "if hold.expires_at <= instant]",
        "if hold.expires_at < instant]",
        (f"{_ENGINE}/test_holds.py", "-k", "expire"),
    ),
    # time and plans
    Mutant(
        "a rollover has no cap",
        "src/creditgate/core/rollovers.py",
        "held = _capped(held, row.rollover.most(row.start_nanos))",
        "held = list(held)",
        ("tests/core/test_rollovers.py",),
    ),
    Mutant(
        "a period that was missed is given beside the next",
        "src/creditgate/core/changes.py",
        "period = max(row.period + 1, period_at(row.anchor, row.reset, now, row.zone))",
        "period = row.period + 1",
        ("tests/core/test_forward.py", "tests/core/test_changes.py"),
    ),
    Mutant(
        "the second of several plans is worked out from what was there before the first",
        "src/creditgate/core/multi_attach.py",
        "        record = after(record, change)\n",
        "",
        ("tests/core/test_multi_attach.py",),
    ),
    Mutant(
        "a checkout is paid as often as it is posted",
        "src/creditgate/core/checkouts.py",
        "if checkout.paid_at is not None:",
        "if False:",
        (f"{_ENGINE}/test_billing.py", "-k", "paying or paid"),
    ),
    Mutant(
        "a checkout is paid for something else than it offered",
        "src/creditgate/core/checkouts.py",
        "if totals_nanos != [plan.total_nanos for plan in checkout.plans]:",
        "if False:",
        (f"{_ENGINE}/test_billing.py", "-k", "page"),
    ),
    # from Redis to SQL and back
    Mutant(
        "the stream is trimmed before SQL has it",
        "src/creditgate/engine/flusher.py",
        "await asyncio.to_thread(self._append, batches)",
        "await self._stream.trim({b.partition: b.upto for b in batches})\n"
        "            await asyncio.to_thread(self._append, batches)",
        (f"{_ENGINE}/test_flusher.py",),
    ),
    Mutant(
        "a partition that cannot be read is passed over in silence",
        "src/creditgate/balances/stream.py",
        "failed = reply\n",
        "pass\n",
        (f"{_ENGINE}/test_flusher.py", "-k", "cannot_be_read"),
    ),
    Mutant(
        "SQL takes a batch wherever it stands",
        "src/creditgate/ledger/positions.py",
        "if moved.rowcount != len(rows):",
        "if moved.rowcount > len(rows):",
        ("tests/conformance/test_ledger_sqlite.py", "-k", "fence or moved or position"),
    ),
    Mutant(
        "an INSERT leaves out columns in which a row has something",
        "src/creditgate/ledger/inserting.py",
        "return [values == self._usual for values in map(self._others, rows)]",
        "return [True for _ in rows]",
        ("tests/conformance/test_ledger_sqlite.py", "-k", "read_back"),
    ),
    Mutant(
        "a seal does not go on from the one before",
        "src/creditgate/ledger/sealing.py",
        """        self.state = state
""",
        """        self.state = b""
""",
        _SEALS,
    ),
    Mutant(
        "a seal leaves out what is in the rows",
        "src/creditgate/ledger/sealing.py",
        "self.state + _pack(sealed)",
        "self.state + _pack(sealed[:4])",
        _SEALS,
    ),
    Mutant(
        "any seal may be the first",
        "src/creditgate/ledger/seals.py",
        "return key is not None and seal.begins ==",
        "return key is not None or seal.begins ==",
        _SEALS,
    ),
    Mutant(
        "nobody looks what comes after the last seal",
        "src/creditgate/ledger/seals.py",
        "        differences += _check_end(connection, partition, after, span)\n",
        "",
        _SEALS,
    ),
    Mutant(
        "a prune takes away what was edited",
        "src/creditgate/ledger/seals.py",
        "            if text := _check(chain, keys, before, seal):\n                raise",
        "            if (text := _check(chain, keys, before, seal)) and not text:\n                raise",
        _SEALS,
    ),
    Mutant(
        "a process without the key adds to a sealed journal",
        "src/creditgate/ledger/seals.py",
        "    if connection.execute(_SELECT_ANY).first():\n",
        "    if False:\n",
        _SEALS,
    ),
    Mutant(
        "what was spooled is posted without a look at the journal",
        "src/creditgate/engine/spool_poster.py",
        "if use.op_id in found:",
        "if False:",
        (f"{_ENGINE}/test_spool.py",),
    ),
    Mutant(
        "a spooled use is removed before it is posted",
        "src/creditgate/engine/spool_poster.py",
        "            waiting = await self._without_posted(waiting)\n",
        "            os.unlink(path)\n            waiting = await self._without_posted(waiting)\n",
        (f"{_ENGINE}/test_spool.py",),
    ),
    Mutant(
        "history asks SQL first and then the stream",
        "src/creditgate/engine/history.py",
        "        for event in events_in(tail):\n",
        "        tail = await self.tail_of(customer_id)\n        for event in events_in(tail):\n",
        (f"{_ENGINE}/test_history.py",),
    ),
    Mutant(
        "an entry that Redis did not show counts as one that left the stream",
        "src/creditgate/engine/history.py",
        'raise Unavailable(f"Redis did not answer: {error}") from error',
        "found = None",
        (f"{_ENGINE}/test_replays.py",),
    ),
    Mutant(
        "ASKING goes without the call that it is for",
        "src/creditgate/balances/hot_cluster.py",
        "return self.behind.is_over",
        "return False",
        ("tests/balances/test_topology.py",),
    ),
    Mutant(
        "a flush in flight is not fenced off",
        "src/creditgate/engine/reconciler.py",
        "if journal is None or last < position.stream_id or not is_same_server:",
        "if False:",
        (f"{_ENGINE}/test_reconciler.py",),
    ),
    Mutant(
        "a stream that was put back goes on below SQL's position",
        "src/creditgate/engine/reconciler.py",
        "await self._stream.advance(partition, position.stream_id)",
        "await asyncio.sleep(0)",
        (f"{_ENGINE}/test_reconciler.py",),
    ),
    Mutant(
        "a record that is newer than SQL is put back as SQL has it",
        "lua/restore.lua",
        "record.uid == uid and record.seq >= sequence",
        "record.uid == uid and record.seq > 1e15",
        (f"{_LUA}/test_restore.py",),
    ),
    # customers' tokens
    Mutant(
        "a token is for whomever its request names",
        "src/creditgate/api/public.py",
        'if "customer_id" in said and not _is(said["customer_id"], customer_id):',
        "if False:",
        _TOKENS,
    ),
    Mutant(
        "a check with a token takes what it is told to take",
        "src/creditgate/api/public.py",
        '        if bytes(said.get(field, b"null")) not in _NOTHING:',
        "        if False:",
        _TOKENS,
    ),
    Mutant(
        "a token is whatever says that it is one",
        "src/creditgate/engine/customer_tokens.py",
        "said = self._signer.unsign(text)",
        'said = text.encode().rpartition(b".")[0]',
        _TOKENS,
    ),
    Mutant(
        "a token outlives the key that minted it",
        "src/creditgate/api/door.py",
        "if token is None or scope is None:",
        "if token is None:",
        _TOKENS,
    ),
)
