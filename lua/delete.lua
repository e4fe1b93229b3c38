-- Deletes a customer: open holds are released, what is then left in every row expires, the record goes, and the journal
-- says so. Its history stays; who is made again under the same id is another customer, with another uid and history.
--
-- KEYS
--   record      cg:{p}:c:<customer>
--   journal     cg:{p}:j
--   due         cg:{p}:due
--   buckets...  cg:{p}:k:<bucket>:<customer>, four of them, only when the caller sent a key (see lib/keys)
-- ARGV
--   not_after    ms of Redis TIME, past which nothing is written
--   customer_id  as the caller wrote it
--   call         the call as JSON, appended unread
--   key          digest of the caller's key, or ''
--   fingerprint  digest of the parameters, or ''
-- Returns
--   {OK, now ms, sequence, stream id}
--   {REPLAYED, now ms, 0, stream id}
--   {INVALID | TOO_LATE | ABSENT | UPGRADE | DUE | KEY_REUSED, Redis TIME in ms}
-- Writes
--   record: all of it, journal: one entry, due, the first bucket: the key. Nothing unless OK.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/rows"
--- @include "lib/journal"
--- @include "lib/receipt"
--- @include "lib/keys"

local RECORD, JOURNAL, DUE, BUCKETS = KEYS[1], KEYS[2], KEYS[3], 4
local not_after, customer_id, call, key, fingerprint = arguments.whole(ARGV[1]), ARGV[2], ARGV[3], ARGV[4], ARGV[5]

-- Read. Whoever repeats a deletion finds no customer any more, or one who came after: the key is that of the first call
-- all the same.
if not not_after or not keys.are_valid(key, fingerprint) then return { STATUS.INVALID, records.time_ms() } end
local record, status = records.read(RECORD, not_after, {})
if status and status ~= STATUS.ABSENT then return { status, record.time } end
local replayed, first_id = keys.find(BUCKETS, key, fingerprint, keys.ANYBODY, record.time)
if replayed == STATUS.KEY_REUSED then return { replayed, record.time } end
if replayed then return { replayed, record.now, 0, first_id } end
if status then return { status, record.time } end
local fields = redis.call('HGETALL', RECORD)
redis.call('ZSCORE', DUE, '') -- a key of another type fails here, before anything is written

-- Decide.
local seq = record.seq + 1
local entry = journal.open(record, customer_id, seq, call)
local row_ids, balances, periods, hold_ids, holds = {}, {}, {}, {}, {}
for i = 1, #fields, 2 do
  local kind, id = string.match(fields[i], '^([boh]):(.+)$')
  if kind == 'b' then
    row_ids[#row_ids + 1] = id
    balances[id] = amount.read(fields[i + 1])
  elseif kind == 'o' then
    rows.add_periods(periods, fields[i + 1])
  elseif kind == 'h' then
    hold_ids[#hold_ids + 1] = id
    holds[#holds + 1] = receipt.read(fields[i + 1])
  end
end
local returns = receipt.returns(holds, periods)
for i = 1, #row_ids do
  local id = row_ids[i]
  if returns[id] then
    balances[id] = amount.add(balances[id], returns[id])
    journal.balance(entry, 'unhold', id, returns[id], balances[id])
  end
  journal.expire(entry, id, balances[id], true)
end
for i = 1, #hold_ids do journal.add(entry, table.concat({ 'put hold', hold_ids[i], 'null' }, ' ')) end
journal.add(entry, 'put customer - null')

-- Write.
local stream_id = journal.append(JOURNAL, entry) -- first: it alone could still meet a key of another type
redis.call('DEL', RECORD)
redis.call('ZREM', DUE, record.uid .. ' ' .. customer_id)
keys.keep(BUCKETS, key, fingerprint, record.uid, stream_id)
return { STATUS.OK, record.now, seq, stream_id }
