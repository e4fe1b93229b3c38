-- Settles holds, one after the other: each is kept as it was held, or changed to what was really used. What was held
-- too much goes back to the rows that gave it, the last first; what was used beyond the hold is taken as track would.
--
-- KEYS
--   record      cg:{p}:c:<customer>
--   journal     cg:{p}:j
--   buckets...  cg:{p}:k:<bucket>:<customer>, four of them, only when the caller sent a key (see lib/keys)
-- ARGV
--   not_after          ms of Redis TIME, past which nothing is written
--   customer_id        as the caller wrote it
--   expected_sequence  the sequence number that was read, to settle though something of the customer is due; or ''
--   key                digest of the caller's key, or ''
--   fingerprint        digest of the parameters, or ''
--   finals_count       how many finals follow
--   finals...          of each hold: its id, its op id, the nanos of units that were used, the call as JSON, digests of
--                      its properties with blanks between, the number of pools, and as many triples of feature id, cost
--                      (nanos of this pool a unit) and need (nanos of this pool, of what was used beyond the hold: all
--                      of it, if the sign is another)
-- Returns
--   {OK | REPLAYED, now ms, sequence, uid, terms, stream id, '', 0, then (row id, delta) of the rows that moved}
--   {INVALID | TOO_LATE | ABSENT | UPGRADE | DUE | KEY_REUSED | MOVED_ON | OUT_OF_RANGE, Redis TIME in ms}
-- Writes
--   record: b:<row id>, h:<hold id>, holds, seq; journal: one entry; the first bucket: the key. Nothing unless OK.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/rows"
--- @include "lib/burn"
--- @include "lib/journal"
--- @include "lib/receipt"
--- @include "lib/keys"
--- @include "lib/alerts"
--- @include "lib/draws"
--- @include "lib/settling"

local RECORD, JOURNAL, BUCKETS = KEYS[1], KEYS[2], 3
local not_after, customer_id, expected_sequence = arguments.whole(ARGV[1]), ARGV[2], ARGV[3]
local key, fingerprint = ARGV[4], ARGV[5]

-- Read.
local finals, fields = settling.read(6)
local is_valid = not_after and finals and keys.are_valid(key, fingerprint)
if not is_valid or not arguments.is_whole_or_empty(expected_sequence) then
  return { STATUS.INVALID, records.time_ms() }
end
local record, status = records.read(RECORD, not_after, fields)
local may_be_due = expected_sequence ~= ''
if status and not (status == STATUS.DUE and may_be_due) then return { status, record.time } end
local replayed, first_id = keys.find(BUCKETS, key, fingerprint, record.uid, record.time)
if replayed == STATUS.KEY_REUSED then return { replayed, record.time } end
if replayed then return { replayed, record.now, record.seq, record.uid, record.terms, first_id, '', 0 } end
if may_be_due and record.seq ~= tonumber(expected_sequence) then return { STATUS.MOVED_ON, record.time } end
local holds_count = tonumber(record.read[HEAD_FIELDS + #fields] or 0)
if not settling.find(finals, record) then return { STATUS.MOVED_ON, record.time } end

-- Decide.
local seq = record.seq + 1
local entry = journal.open(record, customer_id, seq, finals[1].call)
local changes, deltas, gone = { 'seq', seq, 'holds', holds_count - #finals }, {}, {}
for i = 1, #finals do
  local failed = settling.decide(RECORD, finals[i], entry, changes, deltas)
  if failed then return { failed, record.time } end
  gone[i] = 'h:' .. finals[i].hold_id
end

-- Write.
local stream_id = journal.append(JOURNAL, entry) -- first: it alone could still meet a key of another type
redis.call('HSET', RECORD, unpack(changes))
redis.call('HDEL', RECORD, unpack(gone))
keys.keep(BUCKETS, key, fingerprint, record.uid, stream_id)
local reply = { STATUS.OK, record.now, seq, record.uid, record.terms, stream_id, '', 0 }
for i = 1, #deltas do reply[#reply + 1] = deltas[i] end
return reply
