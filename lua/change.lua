-- Changes what a customer is and holds, at once: creates the customer, grants a row, replaces a plan, keeps a profile,
-- pins the clock. The change was worked out from a read of the record, so it holds only for the shape that was read.
--
-- KEYS
--   record      cg:{p}:c:<customer>
--   journal     cg:{p}:j
--   due         cg:{p}:due
--   buckets...  cg:{p}:k:<bucket>:<customer>, four of them, only when the caller sent a key (see lib/keys)
-- ARGV
--   not_after          ms of Redis TIME, past which nothing is written
--   customer_id        as the caller wrote it
--   call               the call as JSON, appended unread
--   key                digest of the caller's key, or ''
--   fingerprint        digest of the parameters, or ''
--   uid                of the customer that was read; when creating, the new one
--   expected_shape     the shape that was read, or 0 when creating
--   expected_sequence  the sequence number that was read, or '' where tracks in between do no harm
--   clock              ms to pin the customer's clock to, or '' to leave it
--   document           the customer's document as JSON, or '' to leave it
--   terms              the terms of all rows as JSON, or '' to leave them
--   due                ms at which something changes by itself next, or ''
--   orders_count       how many orders follow
--   steps_count        how many steps follow them
--   orders...          pairs of feature id, order ('' removes it)
--   steps...           triples of action, row id, amount in nanos (see lib/change)
-- Returns
--   {OK | REPLAYED, now ms, sequence, stream id}
--   {INVALID | TOO_LATE | ABSENT | UPGRADE | DUE | KEY_REUSED | MOVED_ON | OUT_OF_RANGE, Redis TIME in ms}
-- Writes
--   record, journal: one entry, due, the first bucket: the key. Nothing unless OK.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/journal"
--- @include "lib/keys"
--- @include "lib/receipt"
--- @include "lib/change"

local RECORD, JOURNAL, DUE, BUCKETS = KEYS[1], KEYS[2], KEYS[3], 4
local not_after, customer_id, call, key, fingerprint = arguments.whole(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local uid, expected_shape, expected_sequence, clock = ARGV[6], arguments.whole(ARGV[7]), ARGV[8], ARGV[9]

-- Read.
local wanted = change.read(10)
local is_valid = not_after and expected_shape and wanted and keys.are_valid(key, fingerprint)
is_valid = is_valid and arguments.is_whole_or_empty(expected_sequence) and arguments.is_whole_or_empty(clock)
if not is_valid or not arguments.is_word(uid) then
  return { STATUS.INVALID, records.time_ms() }
end
local record, status = records.read(RECORD, not_after, { 'shape' })
record.shape = tonumber(record.read[HEAD_FIELDS + 1] or 0)
local is_new = status == STATUS.ABSENT and expected_shape == 0
if status and not is_new then return { status, record.time } end
local replayed, first_id = keys.find(BUCKETS, key, fingerprint, record.uid, record.time)
if replayed == STATUS.KEY_REUSED then return { replayed, record.time } end
if replayed then return { replayed, record.now, record.seq, first_id } end
if not is_new and (record.uid ~= uid or record.shape ~= expected_shape) then
  return { STATUS.MOVED_ON, record.time }
end
if expected_sequence ~= '' and record.seq ~= tonumber(expected_sequence) then
  return { STATUS.MOVED_ON, record.time }
end

redis.call('ZSCORE', DUE, '') -- a key of another type fails here, before anything is written

-- Decide.
local seq = record.seq + 1
record.uid = uid
if clock ~= '' then
  record.clock = tonumber(clock)
  record.now = record.clock
end
local entry = journal.open(record, customer_id, seq, call)
if clock ~= '' then journal.add(entry, 'put clock - ' .. clock) end
local set, gone, failed = change.decide(RECORD, wanted, entry)
if failed then return { failed, record.time } end
local head = { 'v', LAYOUT, 'uid', uid, 'seq', seq, 'shape', record.shape + 1, 'clock', record.clock or '' }
for i = 1, #head do set[#set + 1] = head[i] end

-- Write.
local stream_id = journal.append(JOURNAL, entry) -- first: it alone could still meet a key of another type
change.write(RECORD, DUE, record, uid .. ' ' .. customer_id, wanted.due, set, gone)
keys.keep(BUCKETS, key, fingerprint, record.uid, stream_id)
return { STATUS.OK, record.now, seq, stream_id }
