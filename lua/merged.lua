-- Answers several checks and tracks of one customer in their order, each as check.lua or track.lua would alone. What
-- one takes is gone for those after it; what one is refused for harms none. One entry says what they took.
--
-- KEYS
--   record      cg:{p}:c:<customer>
--   journal     cg:{p}:j, only when there is a track among them
--   buckets...  cg:{p}:k:<bucket>:<customer>, four of them, only when one of them has a key (see lib/keys)
-- ARGV
--   customer_id  as the caller wrote it
--   calls_count  how many calls follow
--   calls...     of each: not_after, call, key, fingerprint, mode, properties, the number of its pools, and its
--                pools, all as in track.lua; for a check the mode is 'check', and what a check does not have is ''
-- Returns
--   {terms, then for each call what check.lua or track.lua returns, with '' for the terms: OK | REFUSED | REPLAYED |
--    TOO_LATE | ABSENT | UPGRADE | DUE | NO_ENTITY | KEY_REUSED | OUT_OF_RANGE}; the sequence is that of the entry
--   {INVALID, Redis TIME in ms}
-- Writes
--   record: b:<row id>, seq; journal: one entry, or more where it would have too many items; the first bucket: the
--   keys. Nothing unless one of them is OK.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/rows"
--- @include "lib/burn"
--- @include "lib/checking"
--- @include "lib/journal"
--- @include "lib/keys"
--- @include "lib/alerts"
--- @include "lib/tracking"
--- @include "lib/shapes"
--- @include "lib/usual"
--- @include "lib/alike"

local RECORD, JOURNAL, BUCKETS = KEYS[1], KEYS[2], 3
local customer_id, calls_count = ARGV[1], arguments.whole(ARGV[2])
local CHECK = 'check'
local MODES = { check = true, cap = true, reject = true, overflow = true }
-- With these, no list is longer than what `unpack` takes: the order fields of all calls; and the items of an entry, to
-- which a last call adds those of 64 rows and of the limits and alerts.
local CALLS_MAX, ARGUMENTS_MAX, ITEMS_MAX = 64, 2000, 1000

local is_allowed = calls_count and calls_count >= 1 and calls_count <= CALLS_MAX and #ARGV <= ARGUMENTS_MAX
local answered = is_allowed and alike.answer(RECORD, JOURNAL, BUCKETS, customer_id, calls_count)
if answered then return answered end

local function is_valid(call)
  if not MODES[call.mode] or not call.needs or not keys.are_valid(call.key, call.fingerprint) then return false end
  if call.mode == CHECK then return call.key == '' end
  return call.not_after ~= nil and JOURNAL ~= nil and (call.key == '' or #KEYS == BUCKETS + 3)
end

local known_wholes = {} -- by their texts: calls of one moment mostly have the same

local function whole_of(text)
  local found = known_wholes[text]
  if not found then
    found = arguments.whole(text)
    known_wholes[text] = found
  end
  return found
end

-- Nil if one is malformed.
local function read_calls()
  if not is_allowed then return nil end
  local calls, at, most = {}, 3, #ARGV
  for i = 1, calls_count do
    local last = at + 6 + 3 * (whole_of(ARGV[at + 6] or '') or 0)
    if last > most then return nil end
    local shape = shapes.of(ARGV[at + 5], at + 7, last)
    local call = {
      not_after = whole_of(ARGV[at]), text = ARGV[at + 1], key = ARGV[at + 2], fingerprint = ARGV[at + 3],
      mode = ARGV[at + 4], shape = shape, needs = shape and shapes.needs(shape, at + 7), entry = false, first = false,
    }
    if not is_valid(call) then return nil end
    calls[i], at = call, last + 1
  end
  return at == most + 1 and calls or nil
end

-- Read.
local calls = read_calls()
if not calls then return { STATUS.INVALID, records.time_ms() } end
local record, ended = shapes.read(RECORD)

-- Decide.
local seq, changed = record.seq, {}
local entries, used = {}, {} -- by key: the call that used it
local changes = {} -- of the call that is being decided

local function status_of(call)
  if call.not_after and record.time > call.not_after then return STATUS.TOO_LATE end
  if ended then return ended end
  return not call.shape.has_entity and STATUS.NO_ENTITY or nil
end

-- As keys.find, but the first call may be one of these: then it is returned in place of its stream id.
local function find_key(call)
  local first = used[call.key]
  if not first then return keys.find(BUCKETS, call.key, call.fingerprint, record.uid, record.time) end
  if first.fingerprint ~= call.fingerprint then return STATUS.KEY_REUSED end
  return STATUS.REPLAYED, first
end

-- Takes what a call needs and puts it into the entry. Returns a status and the deltas.
local function take(call, list, pools)
  local entry = entries[#entries]
  local is_new = not entry or entry.items >= ITEMS_MAX
  if is_new then entry = journal.open(record, customer_id, seq + 1, call.text) end
  local fields, items = #entry, entry.items
  if not is_new then journal.call(entry, call.text) end
  local answer, deltas = tracking.decide(entry, list, pools, call.mode, changes)
  if answer == STATUS.OK then
    for i = 1, #changes, 2 do changed[changes[i]] = changes[i + 1] end
  end
  for i = #changes, 1, -1 do changes[i] = nil end
  if answer ~= STATUS.OK then
    journal.rewind(entry, fields, items)
    return answer
  end
  if is_new then
    seq = seq + 1
    entries[#entries + 1] = entry
  end
  shapes.keep(call.shape)
  call.entry = entry
  if call.key ~= '' then used[call.key] = call end
  return answer, deltas
end

local function decide(call)
  local status = status_of(call)
  if status then return { status, record.time } end
  local replayed, first
  if call.key ~= '' then replayed, first = find_key(call) end
  if replayed == STATUS.KEY_REUSED then return { replayed, record.time } end
  local list, pools = shapes.rows(RECORD, call.shape, call.needs)
  if replayed then
    call.first = first
    return rows.reply({ replayed, record.now, seq, record.uid, '', '' }, list)
  end
  if call.mode == CHECK then
    local answer, chosen = checking.decide(list, pools)
    return rows.reply({ answer, record.now, seq, record.uid, '', chosen }, list)
  end
  local answer, deltas = take(call, list, pools)
  if answer == STATUS.OUT_OF_RANGE then return { answer, record.time } end
  local reply = { answer, record.now, seq, record.uid, '', '', nil, nil, nil, nil, nil, nil } -- room for one row's
  rows.reply(reply, list)
  for i = 1, #(deltas or {}) do reply[#reply + 1] = deltas[i] end
  return reply
end

local replies = { record.terms or '' }
for i = 1, #calls do replies[i + 1] = decide(calls[i]) end

-- Write.
if #entries > 0 then
  for i = 1, #entries do entries[i].stream_id = journal.append(JOURNAL, entries[i]) end -- first, as in track.lua
  changes = { 'seq', seq }
  for field, text in pairs(changed) do
    changes[#changes + 1] = field
    changes[#changes + 1] = text
  end
  redis.call('HSET', RECORD, unpack(changes))
  for i = 1, #calls do
    local call, reply = calls[i], replies[i + 1]
    if call.entry then
      reply[6] = call.entry.stream_id
      keys.keep(BUCKETS, call.key, call.fingerprint, record.uid, reply[6])
    end
  end
end
for i = 1, #calls do
  local first = calls[i].first
  if first then replies[i + 1][6] = type(first) == 'table' and first.entry.stream_id or first end
end
return replies
