-- Answers whether a customer can afford n units of a feature now. Writes nothing.
--
-- KEYS
--   record  cg:{p}:c:<customer>
-- ARGV
--   properties  digests of the call's properties, with blanks between
--   pools...    triples of feature id, cost (nanos of this pool a unit), need (nanos of this pool, signed)
-- Returns
--   {OK | REFUSED, now ms, sequence, uid, terms, number of the pool that answers or 0, n, n times (row id, balance)}
--   {INVALID | ABSENT | UPGRADE | DUE | NO_ENTITY, Redis TIME in ms}
-- Writes
--   nothing

--- @include "lib/status"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/rows"
--- @include "lib/burn"
--- @include "lib/checking"
--- @include "lib/usual"

local RECORD = KEYS[1]

-- Read.
local orders = usual.orders(2, #ARGV)
local pools -- of the long way
if not orders then pools, orders = rows.pools(2) end
if not orders then return { STATUS.INVALID, records.time_ms() } end
local record, status = records.read(RECORD, nil, orders)
if status then return { status, record.time } end
local found = not pools and usual.rows(RECORD, record, orders)
local answer, chosen = checking.usual(found, 2)
if answer then
  return { answer, record.now, record.seq, record.uid, record.terms, chosen, unpack(found.told) }
end
pools = pools or rows.pools(2)
local list = rows.read(RECORD, pools, record, ARGV[1])

-- Decide.
answer, chosen = checking.decide(list, pools)

-- Write: nothing.
return rows.reply({ answer, record.now, record.seq, record.uid, record.terms, chosen }, list)
