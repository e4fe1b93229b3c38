-- Holds n units of a feature for later, or gives them in advance when n is negative: what track would move is moved
-- now, and a receipt in the same write remembers how to put it right. settle.lua does, at the latest when it expires.
--
-- KEYS
--   record      cg:{p}:c:<customer>
--   journal     cg:{p}:j
--   due         cg:{p}:due
--   buckets...  cg:{p}:k:<bucket>:<customer>, four of them, only when the caller sent a key (see lib/keys)
-- ARGV
--   not_after     ms of Redis TIME, past which nothing is written
--   customer_id   as the caller wrote it
--   call          the call as JSON, appended unread
--   key           digest of the caller's key, or ''
--   fingerprint   digest of the parameters, or ''
--   op_id         of the call: tells this hold from any other that has its id, earlier or later
--   mode          reject: all or nothing; cap: hold what is there; overflow: go below zero
--   hold_id       the caller's name for the hold, encoded as in a key
--   expires_at    ms of the customer's time at which the hold expires, or '' for lasts_ms from now
--   lasts_ms      how long a hold lasts if nothing is said
--   lasts_ms_max  how far ahead it may expire
--   holds_max     how many open holds a customer may have
--   note          the caller's properties, a JSON object
--   properties    digests of them, with blanks between
--   pools...      triples of feature id, cost (nanos of this pool a unit), need (nanos of this pool, signed)
-- Returns
--   {OK | REFUSED | REPLAYED, now ms, sequence, uid, terms, stream id or '', receipt or '', n, n times (row id,
--    balance), then (row id, delta) of the rows that moved}
--   {INVALID | TOO_LATE | ABSENT | UPGRADE | DUE | NO_ENTITY | KEY_REUSED | EXISTS | MISTIMED | TOO_MANY |
--    OUT_OF_RANGE, Redis TIME in ms}
-- Writes
--   record: b:<row id>, h:<hold id>, holds, due, seq; journal: one entry; due; the first bucket: the key. Nothing
--   unless OK.

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

local RECORD, JOURNAL, DUE, BUCKETS = KEYS[1], KEYS[2], KEYS[3], 4
local not_after, customer_id, call = arguments.whole(ARGV[1]), ARGV[2], ARGV[3]
local key, fingerprint = ARGV[4], ARGV[5]
local op_id, mode, hold_id, expires_at = ARGV[6], ARGV[7], ARGV[8], ARGV[9]
local lasts_ms, lasts_ms_max = arguments.whole(ARGV[10]), arguments.whole(ARGV[11])
local holds_max, note, properties = arguments.whole(ARGV[12]), ARGV[13], ARGV[14]
local LATER_MODES = { reject = 'cap', cap = 'cap', overflow = 'overflow' } -- of what may be used beyond the hold

local function are_valid()
  if not not_after or not lasts_ms or not lasts_ms_max or not holds_max then return false end
  if not LATER_MODES[mode] or not arguments.is_whole_or_empty(expires_at) then return false end
  if not receipt.is_id(op_id) or not receipt.is_id(hold_id) then return false end
  return string.find(note, '^{.*}$') ~= nil and keys.are_valid(key, fingerprint)
end

-- Read.
local pools, fields = rows.pools(15)
if not pools or not are_valid() then return { STATUS.INVALID, records.time_ms() } end
local about_holds = #fields + 1
fields[about_holds] = 'holds'
fields[about_holds + 1] = 'h:' .. hold_id
local record, status = records.read(RECORD, not_after, fields)
if status then return { status, record.time } end
local list = rows.read(RECORD, pools, record, properties)
local replayed, first_id = keys.find(BUCKETS, key, fingerprint, record.uid, record.time)
if replayed == STATUS.KEY_REUSED then return { replayed, record.time } end
if replayed then
  return rows.reply({ replayed, record.now, record.seq, record.uid, record.terms, first_id, '' }, list)
end
local holds_count = tonumber(record.read[HEAD_FIELDS + about_holds] or 0)
if record.read[HEAD_FIELDS + about_holds + 1] then return { STATUS.EXISTS, record.time } end
redis.call('ZSCORE', DUE, '') -- a key of another type fails here, before anything is written

-- Decide. Where the customer has no row at all, there is nothing to hold, whatever the mode.
local hold = { feature = pools[1].feature, op_id = op_id, mode = LATER_MODES[mode], properties = note }
hold.expires_at = tonumber(expires_at) or record.now + lasts_ms
hold.value, hold.used = pools[1].need, 0
if hold.expires_at <= record.now or hold.expires_at > record.now + lasts_ms_max then
  return { STATUS.MISTIMED, record.time }
end
if holds_count >= holds_max then return { STATUS.TOO_MANY, record.time } end
local is_unentitled = #list == 0 and amount.less(0, hold.value)
if is_unentitled or not burn.draw(list, pools, mode) then
  return rows.reply({ STATUS.REFUSED, record.now, record.seq, record.uid, record.terms, '', '' }, list)
end
receipt.add_drawn(hold, list, pools)
local text = receipt.text(hold)
local seq = record.seq + 1
local entry = journal.open(record, customer_id, seq, call)
local changes = { 'seq', seq, 'holds', holds_count + 1, 'h:' .. hold_id, text }
local deltas = journal.moves(entry, list, 'hold', changes)
local gates = deltas and journal.moves(entry, rows.gates(pools), 'hold', changes)
if not gates then return { STATUS.OUT_OF_RANGE, record.time } end
if entry.items == 0 then journal.add(entry, 'hold') end
if amount.less(0, hold.value) then alerts.add(entry, list, pools) end
journal.add(entry, table.concat({ 'put hold', hold_id, text }, ' '))
local is_next_due = not record.due or hold.expires_at < record.due
if is_next_due then
  changes[#changes + 1] = 'due'
  changes[#changes + 1] = hold.expires_at
end

-- Write.
local stream_id = journal.append(JOURNAL, entry) -- first: it alone could still meet a key of another type
redis.call('HSET', RECORD, unpack(changes))
if is_next_due and not record.clock then
  redis.call('ZADD', DUE, hold.expires_at, record.uid .. ' ' .. customer_id)
end
keys.keep(BUCKETS, key, fingerprint, record.uid, stream_id)
local reply = rows.reply({ STATUS.OK, record.now, seq, record.uid, record.terms, stream_id, text }, list)
for i = 1, #deltas do reply[#reply + 1] = deltas[i] end
return reply
