-- Reads a whole record, and the time that counts for its customer, at one instant. Writes nothing.
--
-- KEYS
--   record  cg:{p}:c:<customer>
-- ARGV
-- Returns
--   {OK | DUE, now ms, sequence, n, n times (field, value)}
--   {ABSENT | UPGRADE, Redis TIME in ms}
-- Writes
--   nothing

--- @include "lib/status"
--- @include "lib/record"

local record, status = records.read(KEYS[1], nil, {})
if status and status ~= STATUS.DUE then return { status, record.time } end
local fields = redis.call('HGETALL', KEYS[1])
local reply = { status or STATUS.OK, record.now, record.seq, #fields / 2 }
for i = 1, #fields do reply[4 + i] = fields[i] end
return reply
