-- Keeps a batch of usage as one entry of the journal, to be worked off later: nothing of it has been taken yet.
--
-- KEYS
--   batches     cg:{sys}:batches
--   journal     cg:{sys}:j
--   buckets...  cg:{sys}:k:<bucket>, four of them, only when the caller sent a key (see lib/keys)
-- ARGV
--   not_after    ms of Redis TIME, past which nothing is written
--   call         the call as JSON, appended unread
--   key          digest of the caller's key, or ''
--   fingerprint  digest of the parameters, or ''
--   batch_id     one word, never used before
--   document     the batch as JSON
--   most         how many batches may be open
-- Returns
--   {OK | REPLAYED, Redis TIME in ms, how many are open, stream id}
--   {INVALID | TOO_LATE | KEY_REUSED | REFUSED, Redis TIME in ms}
-- Writes
--   batches: the stream id under the batch id; journal: one entry; the first bucket: the key. Nothing unless OK.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/journal"
--- @include "lib/keys"

local BATCHES, JOURNAL, BUCKETS = KEYS[1], KEYS[2], 3
local not_after, call, key, fingerprint = arguments.whole(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local batch_id, document, most = ARGV[5], ARGV[6], arguments.whole(ARGV[7])

-- Read.
local time = records.time_ms()
local is_valid = not_after and most and document ~= '' and arguments.is_word(batch_id)
if not is_valid or not keys.are_valid(key, fingerprint) then return { STATUS.INVALID, time } end
if time > not_after then return { STATUS.TOO_LATE, time } end
local open = redis.call('HLEN', BATCHES)
local replayed, first_id = keys.find(BUCKETS, key, fingerprint, '-', time)
if replayed == STATUS.KEY_REUSED then return { replayed, time } end
if replayed then return { replayed, time, open, first_id } end
if open >= most then return { STATUS.REFUSED, time } end

-- Decide.
local entry = { 'n', open + 1, 'k0', call }
entry.items = 0
journal.add(entry, table.concat({ 'put', 'batch', batch_id, document }, ' '))

-- Write.
local stream_id = journal.append(JOURNAL, entry) -- first: it alone could still meet a key of another type
redis.call('HSET', BATCHES, batch_id, stream_id)
keys.keep(BUCKETS, key, fingerprint, '-', stream_id)
return { STATUS.OK, time, open + 1, stream_id }
