-- Takes n units of a feature from a customer's balances, or gives them back when n is negative. One entry says so.
--
-- KEYS
--   record      cg:{p}:c:<customer>
--   journal     cg:{p}:j
--   buckets...  cg:{p}:k:<bucket>:<customer>, four of them, only when the caller sent a key (see lib/keys)
-- ARGV
--   not_after    ms of Redis TIME, past which nothing is written
--   customer_id  as the caller wrote it
--   call         the call as JSON, appended unread
--   key          digest of the caller's key, or ''
--   fingerprint  digest of the parameters, or ''
--   mode         cap: take what is there; reject: all or nothing; overflow: go below zero
--   properties   digests of the call's properties, with blanks between
--   pools...     triples of feature id, cost (nanos of this pool a unit), need (nanos of this pool, signed)
-- Returns
--   {OK | REFUSED | REPLAYED, now ms, sequence, uid, terms, stream id or '', n, n times (row id, balance), then
--    (row id, delta) of the rows that moved}
--   {INVALID | TOO_LATE | ABSENT | UPGRADE | DUE | NO_ENTITY | KEY_REUSED | OUT_OF_RANGE, Redis TIME in ms}
-- Writes
--   record: b:<row id>, seq; journal: one entry; the first bucket: the key. Nothing unless OK.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/rows"
--- @include "lib/burn"
--- @include "lib/journal"
--- @include "lib/keys"
--- @include "lib/alerts"
--- @include "lib/tracking"
--- @include "lib/usual"

local RECORD, JOURNAL, BUCKETS = KEYS[1], KEYS[2], 3
local not_after, customer_id, call, key, fingerprint = arguments.whole(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local mode, properties = ARGV[6], ARGV[7]
local is_mode = mode == 'cap' or mode == 'reject' or mode == 'overflow'

-- Read.
local orders = usual.orders(8, #ARGV)
local pools, list -- of the long way
if not orders then pools, orders = rows.pools(8) end
if not not_after or not is_mode or not orders or not keys.are_valid(key, fingerprint) then
  return { STATUS.INVALID, records.time_ms() }
end
local record, status = records.read(RECORD, not_after, orders)
if status then return { status, record.time } end
local replayed, first_id = keys.find(BUCKETS, key, fingerprint, record.uid, record.time)
if replayed == STATUS.KEY_REUSED then return { replayed, record.time } end
local found = not pools and not replayed and usual.rows(RECORD, record, orders)
local payer, need = tracking.payer(found, 8)
if not payer then
  pools = pools or rows.pools(8)
  list = rows.read(RECORD, pools, record, properties)
end
if replayed then
  return rows.reply({ replayed, record.now, record.seq, record.uid, record.terms, first_id }, list)
end

-- Decide.
local seq = record.seq + 1
local entry, changes = journal.open(record, customer_id, seq, call), { 'seq', seq, nil, nil } -- room for one row's
local told
if payer then
  told, changes[3], changes[4] = found.told, tracking.take(found, payer, need, entry)
else
  local answer, deltas = tracking.decide(entry, list, pools, mode, changes)
  if answer == STATUS.REFUSED then
    return rows.reply({ answer, record.now, record.seq, record.uid, record.terms, '' }, list)
  end
  if answer == STATUS.OUT_OF_RANGE then return { answer, record.time } end
  told = rows.reply({}, list)
  for i = 1, #deltas do told[#told + 1] = deltas[i] end
end

-- Write.
local stream_id = journal.append(JOURNAL, entry) -- first: the one write that could still meet a key of another type
redis.call('HSET', RECORD, unpack(changes))
keys.keep(BUCKETS, key, fingerprint, record.uid, stream_id)
return { STATUS.OK, record.now, seq, record.uid, record.terms, stream_id, unpack(told) }
