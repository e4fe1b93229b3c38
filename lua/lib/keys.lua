-- The caller's idempotency keys: one small hash per customer and 12 hours; field = digest of key and scope, value =
-- '<fingerprint of the parameters> <stream id of the first call> <uid of the customer>'. A key holds for 24 hours, and
-- only for the customer who used it: not for one who was deleted and came again under the same id.
-- KEYS[first] is the bucket that is written; the three after it are only read: the next one (another sidecar may
-- already be past the boundary) and the two before.
local KEY_TTL_MS = 86400000
local BUCKET_TTL_MS = 129600000 -- 12 hours of filling, then 24 hours of use

local keys = { ANYBODY = '*' }

--- @usual
-- Whether a key can be kept and found again: no key, or two digests in hex.
function keys.are_valid(key, fingerprint)
  return key == '' or (string.find(key, '^%x+$') ~= nil and string.find(fingerprint, '^%x+$') ~= nil)
end

--- @usual
-- Returns a status and the stream id of the first call, or nil when the key is new (or there is none). With uid
-- ANYBODY, whoever had the customer's id may have used the key.
function keys.find(first, key, fingerprint, uid, time)
  if key == '' then return nil end
  for i = first, first + 3 do
    local found = redis.call('HGET', KEYS[i], key)
    if found then
      local before, stream_id, ms, owner = string.match(found, '^(%x+) ((%d+)-%d+) (%S+)$')
      if (owner == uid or uid == keys.ANYBODY) and time - tonumber(ms) < KEY_TTL_MS then
        if before ~= fingerprint then return STATUS.KEY_REUSED end
        return STATUS.REPLAYED, stream_id
      end
    end
  end
  return nil
end

--- @usual
function keys.keep(first, key, fingerprint, uid, stream_id)
  if key ~= '' then keys.keep_all(first, { key, [key] = fingerprint }, uid, stream_id) end
end

--- @usual
-- Adds a key to those of several calls: a list that also tells the fingerprint of each. False if it is there, or
-- cannot be kept.
function keys.add(used, key, fingerprint)
  if key == '' then return true end
  if used[key] or not keys.are_valid(key, fingerprint) then return false end
  used[key], used[#used + 1] = fingerprint, key
  return true
end

--- @usual
-- Whether nobody who had the customer's id ever used one of them. Reads each bucket once.
function keys.are_new(first, used)
  if #used == 0 then return true end
  for i = first, first + 3 do
    local found = redis.call('HMGET', KEYS[i], unpack(used))
    for k = 1, #used do
      if found[k] then return false end
    end
  end
  return true
end

--- @usual
-- Keeps all of them for the entry with this stream id.
function keys.keep_all(first, used, uid, stream_id)
  if #used == 0 then return end
  local fields = {}
  for k = 1, #used do
    fields[2 * k - 1], fields[2 * k] = used[k], used[used[k]] .. ' ' .. stream_id .. ' ' .. uid
  end
  redis.call('HSET', KEYS[first], unpack(fields))
  redis.call('PEXPIRE', KEYS[first], BUCKET_TTL_MS)
end
