-- Steps a customer over what fell due: what expires, what is renewed, and the next `due`. The engine worked the steps
-- out from a read of the record, so they hold only for the sequence number that was read; two sweeps cannot step twice.
-- Without steps, only `due` is put right: it was that of a hold that is settled by now.
--
-- KEYS
--   record   cg:{p}:c:<customer>
--   journal  cg:{p}:j
--   due      cg:{p}:due
-- ARGV
--   not_after          ms of Redis TIME, past which nothing is written
--   customer_id        as the caller wrote it
--   call               the call as JSON, appended unread
--   uid                of the customer that was read
--   expected_sequence  the sequence number that was read
--   document           the customer's document as JSON, or '' to leave it
--   terms              the terms of all rows as JSON, or '' to leave them
--   due                ms at which something changes by itself next, or ''
--   orders_count       how many orders follow
--   steps_count        how many steps follow them
--   orders...          pairs of feature id, order ('' removes it)
--   steps...           triples of action, row id, amount in nanos (see lib/change)
-- Returns
--   {OK, now ms, sequence, stream id, or '' without steps}
--   {INVALID | TOO_LATE | ABSENT | UPGRADE | MOVED_ON | OUT_OF_RANGE, Redis TIME in ms}
-- Writes
--   record, journal: one entry (without steps, no entry), due. Nothing unless OK.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/journal"
--- @include "lib/receipt"
--- @include "lib/change"

local RECORD, JOURNAL, DUE = KEYS[1], KEYS[2], KEYS[3]
local not_after, customer_id, call = arguments.whole(ARGV[1]), ARGV[2], ARGV[3]
local uid, expected_sequence = ARGV[4], arguments.whole(ARGV[5])

-- Read.
local wanted = change.read(6)
if not not_after or not expected_sequence or not wanted then return { STATUS.INVALID, records.time_ms() } end
local record, status = records.read(RECORD, not_after, { 'shape' })
record.shape = tonumber(record.read[HEAD_FIELDS + 1] or 0)
if status and status ~= STATUS.DUE then return { status, record.time } end
if status ~= STATUS.DUE or record.uid ~= uid or record.seq ~= expected_sequence then
  return { STATUS.MOVED_ON, record.time }
end

redis.call('ZSCORE', DUE, '') -- a key of another type fails here, before anything is written

-- Decide.
local seq, stream_id = record.seq, ''
local entry = journal.open(record, customer_id, seq + 1, call)
local set, gone, failed = change.decide(RECORD, wanted, entry)
if failed then return { failed, record.time } end

-- Write.
if entry.items > 0 then
  stream_id = journal.append(JOURNAL, entry) -- first: it alone could still meet a key of another type
  seq = seq + 1
  local head = { 'seq', seq, 'shape', record.shape + 1 }
  for i = 1, #head do set[#set + 1] = head[i] end
end
change.write(RECORD, DUE, record, uid .. ' ' .. customer_id, wanted.due, set, gone)
return { STATUS.OK, record.now, seq, stream_id }
