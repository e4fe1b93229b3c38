-- Puts a customer's record back as SQL has it, after Redis came back older than SQL. Nothing is journaled: SQL has it.
-- A record that is as new or newer stays, and once another restorer is through, and its stream goes on, all do: a slow
-- restorer cannot undo what was written since.
--
-- KEYS
--   record   cg:{p}:c:<customer>
--   journal  cg:{p}:j
--   due      cg:{p}:due
-- ARGV
--   stood_at      last id of the journal when it was found to be behind SQL
--   customer_id   as the caller wrote it
--   uid           of the customer
--   sequence      number of the customer's last entry in SQL
--   clock         ms of the pinned clock, or ''
--   document      the customer's document as JSON, or '' if the customer was deleted
--   terms         the terms of all rows as JSON
--   due           ms at which something changes by itself next, or ''
--   orders_count  how many orders follow
--   holds_count   how many open holds follow them
--   orders...     pairs of feature id, order
--   holds...      pairs of hold id as in a key, receipt (see lib/receipt)
--   balances...   pairs of row id, amount in nanos
-- Returns
--   {OK | MOVED_ON, Redis TIME in ms}
--   {INVALID, Redis TIME in ms}
-- Writes
--   record (no more, if the customer was deleted), due. Nothing unless OK.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/journal"

local RECORD, JOURNAL, DUE = KEYS[1], KEYS[2], KEYS[3]
local stood_at, customer_id, uid, sequence, clock = ARGV[1], ARGV[2], ARGV[3], arguments.whole(ARGV[4]), ARGV[5]
local document, terms, due = ARGV[6], ARGV[7], ARGV[8]
local orders_count, holds_count = arguments.whole(ARGV[9]), arguments.whole(ARGV[10])
local FIRST_ORDER = 11

local function are_valid()
  if not sequence or not orders_count or not holds_count or not arguments.is_word(uid) then return false end
  if not arguments.is_whole_or_empty(clock) or not arguments.is_whole_or_empty(due) then return false end
  local first_balance = FIRST_ORDER + 2 * orders_count + 2 * holds_count
  if first_balance > #ARGV + 1 or (#ARGV - first_balance) % 2 == 0 then return false end
  for i = first_balance, #ARGV, 2 do
    if not amount.read(ARGV[i + 1]) then return false end
  end
  return true
end

-- Read.
if not are_valid() then return { STATUS.INVALID, records.time_ms() } end
local record, status = records.read(RECORD, nil, {})
local member = uid .. ' ' .. customer_id
redis.call('ZSCORE', DUE, member) -- a key of another type fails here, before anything is written
local has_moved_on = journal.last_id(JOURNAL) ~= stood_at

-- Decide. The shape only has to differ from any that was read before: it never exceeds the sequence number.
if has_moved_on or (status ~= STATUS.ABSENT and record.uid == uid and record.seq >= sequence) then
  return { STATUS.MOVED_ON, record.time }
end
local fields = { 'v', LAYOUT, 'uid', uid, 'seq', sequence, 'shape', sequence, 'due', due, 'clock', clock }
fields[#fields + 1] = 'doc'
fields[#fields + 1] = document
fields[#fields + 1] = 'terms'
fields[#fields + 1] = terms
fields[#fields + 1] = 'holds'
fields[#fields + 1] = holds_count
local first_hold = FIRST_ORDER + 2 * orders_count
local first_balance = first_hold + 2 * holds_count
for i = FIRST_ORDER, #ARGV, 2 do
  local kind = i < first_hold and 'o:' or i < first_balance and 'h:' or 'b:'
  fields[#fields + 1] = kind .. ARGV[i]
  fields[#fields + 1] = ARGV[i + 1]
end

-- Write.
redis.call('DEL', RECORD)
redis.call('ZREM', DUE, member, (record.uid or uid) .. ' ' .. customer_id)
if document ~= '' then redis.call('HSET', RECORD, unpack(fields)) end
if document ~= '' and due ~= '' and clock == '' then redis.call('ZADD', DUE, due, member) end
return { STATUS.OK, record.time }
