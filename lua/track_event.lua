-- Takes n units of each of several features, or gives them back when n is negative: an event that counts for them all.
-- They draw one after the other, so a credit system that prices two of them is drawn twice. One entry says so.
--
-- KEYS
--   record      cg:{p}:c:<customer>
--   journal     cg:{p}:j
--   buckets...  cg:{p}:k:<bucket>:<customer>, four of them, only when the caller sent a key (see lib/keys)
-- ARGV
--   not_after    ms of Redis TIME, past which nothing is written
--   customer_id  as the caller wrote it
--   mode         cap: take what is there; overflow: go below zero
--   properties   digests of the event's properties, with blanks between
--   key          digest of the caller's key, or ''
--   fingerprint  digest of the parameters, or ''
--   uses_count   how many features follow
--   uses...      of each: the call as JSON, appended unread, the number of its pools, and as many triples of feature
--                id, cost (nanos of this pool a unit) and need (nanos of this pool, signed)
-- Returns
--   {OK | REPLAYED, now ms, sequence, uid, terms, stream id, n, n times (row id, balance), then (row id, delta) of the
--    rows that moved}; of a row that is there for several features, the last balance is true and the deltas add up
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
--- @include "lib/draws"

local RECORD, JOURNAL, BUCKETS = KEYS[1], KEYS[2], 3
local not_after, customer_id, mode, properties = arguments.whole(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local key, fingerprint, uses_count = ARGV[5], ARGV[6], arguments.whole(ARGV[7])
local MODES = { cap = true, overflow = true }
local USES_MAX = 16 -- 64 rows and 32 limits drawn by each stay well below what `unpack` takes

-- Nil if one is malformed.
local function read_uses()
  if not uses_count or uses_count < 1 or uses_count > USES_MAX then return nil end
  local uses, at = {}, 8
  for i = 1, uses_count do
    local last = at + 1 + 3 * (arguments.whole(ARGV[at + 1]) or 0)
    if last > #ARGV then return nil end
    local use = { call = ARGV[at], mode = mode, properties = properties }
    use.pools, use.orders = rows.pools(at + 2, last)
    if not use.pools then return nil end
    uses[i], at = use, last + 1
  end
  return at == #ARGV + 1 and uses or nil
end

-- Read.
local uses = read_uses()
if not not_after or not MODES[mode] or not uses or not keys.are_valid(key, fingerprint) then
  return { STATUS.INVALID, records.time_ms() }
end
local record, status = records.read(RECORD, not_after, uses[1].orders)
if status then return { status, record.time } end
local replayed, first_id = keys.find(BUCKETS, key, fingerprint, record.uid, record.time)
if replayed == STATUS.KEY_REUSED then return { replayed, record.time } end
local shown = {}
local function show(list)
  for i = 1, #list do shown[#shown + 1] = list[i] end
end
if replayed then
  for i = 1, #uses do show(draws.rows(RECORD, uses[i].pools, uses[i].orders, properties)) end
  return rows.reply({ replayed, record.now, record.seq, record.uid, record.terms, first_id }, shown)
end

-- Decide.
local seq = record.seq + 1
local entry = journal.open(record, customer_id, seq, uses[1].call)
local changes, deltas = { 'seq', seq }, {}
for i = 1, #uses do
  local use, first_item = uses[i], entry.items
  if i > 1 then journal.call(entry, use.call) end
  local list = draws.use(RECORD, use, entry, changes, deltas)
  if not list then return { STATUS.OUT_OF_RANGE, record.time } end
  if entry.items == first_item then journal.add(entry, draws.kind(use)) end
  show(list)
end

-- Write.
local stream_id = journal.append(JOURNAL, entry) -- first: the one write that could still meet a key of another type
redis.call('HSET', RECORD, unpack(changes))
keys.keep(BUCKETS, key, fingerprint, record.uid, stream_id)
local reply = rows.reply({ STATUS.OK, record.now, seq, record.uid, record.terms, stream_id }, shown)
for i = 1, #deltas do reply[#reply + 1] = deltas[i] end
return reply
