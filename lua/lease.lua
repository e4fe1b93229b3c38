-- Takes or renews a lease: the right to do a piece of work alone for a while, or to use a name for a hold (the lease is
-- then cg:{l:<digest>}). Nothing that must be right rests on it.
--
-- KEYS
--   lease  cg:{sys}:lease:<name>
-- ARGV
--   holder      a name that nobody else has
--   ttl_ms      how long it is ours from now on; 0 gives it back
--   instead_of  a holder from whom it may be taken, or ''
-- Returns
--   {OK, Redis TIME in ms, 1 if it was the holder's before, else 0}
--   {MOVED_ON, Redis TIME in ms, who has it, ms for which he has it}
-- Writes
--   lease

--- @include "lib/status"
--- @include "lib/record"

local LEASE = KEYS[1]
local holder, ttl_ms, instead_of = ARGV[1], tonumber(ARGV[2]), ARGV[3]

-- Read.
local current = redis.call('GET', LEASE)

-- Decide.
if current and current ~= holder and current ~= instead_of then
  return { STATUS.MOVED_ON, records.time_ms(), current, redis.call('PTTL', LEASE) }
end

-- Write.
if ttl_ms > 0 then
  redis.call('SET', LEASE, holder, 'PX', ttl_ms)
else
  redis.call('DEL', LEASE)
end
return { STATUS.OK, records.time_ms(), current == holder and 1 or 0 }
