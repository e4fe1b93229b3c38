-- Closes a batch of usage once every item is decided, with what became of it as the last document of the batch.
--
-- KEYS
--   batches  cg:{sys}:batches
--   journal  cg:{sys}:j
-- ARGV
--   not_after  ms of Redis TIME, past which nothing is written
--   call       the call as JSON, appended unread
--   batch_id   one word
--   document   what became of the batch, as JSON
-- Returns
--   {OK, Redis TIME in ms, how many are open, stream id}
--   {INVALID | TOO_LATE | MOVED_ON, Redis TIME in ms}
-- Writes
--   batches: the batch is gone; journal: one entry. Nothing unless OK.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/journal"

local BATCHES, JOURNAL = KEYS[1], KEYS[2]
local not_after, call, batch_id, document = arguments.whole(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]

-- Read.
local time = records.time_ms()
if not not_after or document == '' or not arguments.is_word(batch_id) then return { STATUS.INVALID, time } end
if time > not_after then return { STATUS.TOO_LATE, time } end
if redis.call('HEXISTS', BATCHES, batch_id) == 0 then return { STATUS.MOVED_ON, time } end
local open = redis.call('HLEN', BATCHES) - 1

-- Decide.
local entry = { 'n', open, 'k0', call }
entry.items = 0
journal.add(entry, table.concat({ 'put', 'batch', batch_id, document }, ' '))

-- Write.
local stream_id = journal.append(JOURNAL, entry) -- first: it alone could still meet a key of another type
redis.call('HDEL', BATCHES, batch_id)
return { STATUS.OK, time, open, stream_id }
