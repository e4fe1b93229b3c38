-- Takes or renews a lease: the right to do a piece of work alone for a while. Nothing that must be right rests on it.
--
-- KEYS
--   lease   cg:{sys}:lease:<name>
-- ARGV
--   holder  a name that nobody else has
--   ttl_ms  how long it is ours from now on; 0 gives it back
-- Returns
--   {OK | MOVED_ON, Redis TIME in ms}
-- Writes
--   lease

--- @include "lib/status"
--- @include "lib/record"

local LEASE = KEYS[1]
local holder, ttl_ms = ARGV[1], tonumber(ARGV[2])

-- Read.
local current = redis.call('GET', LEASE)

-- Decide.
if current and current ~= holder then return { STATUS.MOVED_ON, records.time_ms() } end

-- Write.
if ttl_ms > 0 then
  redis.call('SET', LEASE, holder, 'PX', ttl_ms)
else
  redis.call('DEL', LEASE)
end
return { STATUS.OK, records.time_ms() }
