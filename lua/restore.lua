-- Puts a customer's record back as SQL has it, after Redis came back older than SQL. Nothing is journaled: SQL has it. A
-- record that is as new or newer stays, so that a slow restorer cannot undo what was written since.
--
-- KEYS
--   record  cg:{p}:c:<customer>
--   due     cg:{p}:due
-- ARGV
--   customer_id   as the caller wrote it
--   uid           of the customer
--   sequence      number of the customer's last entry in SQL
--   clock         ms of the pinned clock, or ''
--   document      the customer's document as JSON
--   terms         the terms of all rows as JSON
--   due           ms at which something changes by itself next, or ''
--   orders_count  how many orders follow
--   orders...     pairs of feature id, order
--   balances...   pairs of row id, amount in nanos
-- Returns
--   {OK | MOVED_ON, Redis TIME in ms}
--   {INVALID, Redis TIME in ms}
-- Writes
--   record, due. Nothing unless OK.

--- @include "lib/status"
--- @include "lib/record"

local RECORD, DUE = KEYS[1], KEYS[2]
local customer_id, uid, sequence, clock = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local document, terms, due, orders_count = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8])

-- Read.
if not sequence or not orders_count then return { STATUS.INVALID, records.time_ms() } end
local record, status = records.read(RECORD, nil, {})
local member = uid .. ' ' .. customer_id
redis.call('ZSCORE', DUE, member) -- a key of another type fails here, before anything is written

-- Decide. The shape only has to differ from any that was read before: it never exceeds the sequence number.
if status ~= STATUS.ABSENT and record.uid == uid and record.seq >= sequence then
  return { STATUS.MOVED_ON, record.time }
end
local fields = { 'v', LAYOUT, 'uid', uid, 'seq', sequence, 'shape', sequence, 'due', due, 'clock', clock }
fields[#fields + 1] = 'doc'
fields[#fields + 1] = document
fields[#fields + 1] = 'terms'
fields[#fields + 1] = terms
for i = 9, #ARGV, 2 do
  fields[#fields + 1] = (i < 9 + 2 * orders_count and 'o:' or 'b:') .. ARGV[i]
  fields[#fields + 1] = ARGV[i + 1]
end

-- Write.
redis.call('DEL', RECORD)
redis.call('HSET', RECORD, unpack(fields))
if due == '' or clock ~= '' then
  redis.call('ZREM', DUE, member)
else
  redis.call('ZADD', DUE, due, member)
end
return { STATUS.OK, record.time }
