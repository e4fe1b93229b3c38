-- Remembers how much of a hold has been used so far: the most that was ever said. A hold that expires is settled at it.
--
-- KEYS
--   record   cg:{p}:c:<customer>
--   journal  cg:{p}:j
-- ARGV
--   not_after    ms of Redis TIME, past which nothing is written
--   customer_id  as the caller wrote it
--   call         the call as JSON, appended unread
--   hold_id      the caller's name for the hold, encoded as in a key
--   used         nanos of units
-- Returns
--   {OK, now ms, sequence, uid, terms, stream id or '' if it was said before, receipt, 0}
--   {INVALID | TOO_LATE | ABSENT | UPGRADE | DUE, Redis TIME in ms}
--   {MOVED_ON, Redis TIME in ms}, if there is no such hold (any more)
--   {REFUSED, Redis TIME in ms}, if the hold has given something in advance instead
-- Writes
--   record: h:<hold id>, seq; journal: one entry. Nothing unless OK, nor if as much has been said before.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/journal"
--- @include "lib/receipt"

local RECORD, JOURNAL = KEYS[1], KEYS[2]
local not_after, customer_id, call = arguments.whole(ARGV[1]), ARGV[2], ARGV[3]
local hold_id, used = ARGV[4], amount.read(ARGV[5] or '')

-- Read.
if not not_after or not receipt.is_id(hold_id) or not used or amount.less(used, 0) then
  return { STATUS.INVALID, records.time_ms() }
end
local record, status = records.read(RECORD, not_after, { 'h:' .. hold_id })
if status then return { status, record.time } end
local text = record.read[HEAD_FIELDS + 1]
if not text then return { STATUS.MOVED_ON, record.time } end

-- Decide.
local hold = receipt.read(text)
if amount.less(hold.value, 0) then return { STATUS.REFUSED, record.time } end
if not amount.less(hold.used, used) then
  return { STATUS.OK, record.now, record.seq, record.uid, record.terms, '', text, 0 }
end
hold.used = used
text = receipt.text(hold)
local seq = record.seq + 1
local entry = journal.open(record, customer_id, seq, call)
journal.add(entry, table.concat({ 'put hold', hold_id, text }, ' '))

-- Write.
local stream_id = journal.append(JOURNAL, entry) -- first: it alone could still meet a key of another type
redis.call('HSET', RECORD, 'seq', seq, 'h:' .. hold_id, text)
return { STATUS.OK, record.now, seq, record.uid, record.terms, stream_id, text, 0 }
