-- Several usual calls of one customer (see lib/usual) that differ in little more than how much they need: for a third
-- of what each would cost alone.
local FIRST = 3 -- where the first call begins
local BEFORE_POOLS = 7 -- how many arguments of a call are before its pools
local NEED = '^[1-9]%d*$'

local alike = {}

--- @usual
-- Whether the call in ARGV[at] to ARGV[at + size - 1] is usual if the one before it is.
local function is_like_before(at, size)
  if ARGV[at + 6] ~= ARGV[at + 6 - size] then return false end
  for i = at + BEFORE_POOLS, at + size - 1, 3 do
    local need = ARGV[i + 2]
    if ARGV[i] ~= ARGV[i - size] or ARGV[i + 1] ~= ARGV[i + 1 - size] then return false end
    if need ~= ARGV[i + 2 - size] and (#need > DIGITS_MAX or not string.find(need, NEED)) then return false end
  end
  return true
end

--- @usual
-- Returns what merged.lua returns, or nil, and nothing written, where a call is not usual, not like the first, or its
-- key was used before.
function alike.answer(record_key, stream, buckets, customer_id, count)
  -- Read.
  local pools_count = arguments.whole(ARGV[FIRST + 6])
  local size = BEFORE_POOLS + 3 * (pools_count or 0)
  if not pools_count or #ARGV ~= FIRST - 1 + count * size then return nil end
  local orders = usual.orders(FIRST + BEFORE_POOLS, FIRST + size - 1)
  if not orders then return nil end
  for at = FIRST + size, #ARGV, size do
    if not is_like_before(at, size) then return nil end
  end
  local record, status = records.read(record_key, nil, orders)
  local found = not status and usual.rows(record_key, record, orders)
  if not found then return nil end

  -- Decide.
  local replies, seq, tracks, used = { record.terms }, record.seq, {}, {}
  local entry, field, balance
  for at = FIRST, #ARGV, size do
    local text, key, fingerprint, mode = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
    local reply
    if mode == 'check' then
      local answer = ARGV[at] == '' and key == '' and checking.usual(found, at + BEFORE_POOLS)
      if not answer then return nil end
      reply = { answer, record.now, seq, record.uid, '', found.pool, unpack(found.told, 1, found.last) }
    else
      local not_after = arguments.whole(ARGV[at])
      local is_mode = mode == 'cap' or mode == 'reject' or mode == 'overflow'
      local payer, need = tracking.payer(found, at + BEFORE_POOLS)
      if not is_mode or not stream or not not_after or record.time > not_after or not payer then return nil end
      if not keys.add(used, key, fingerprint) then return nil end
      if entry then
        journal.call(entry, text)
      else
        seq = seq + 1
        entry = journal.open(record, customer_id, seq, text)
      end
      field, balance = tracking.take(found, payer, need, entry) -- all from one row
      reply = { STATUS.OK, record.now, seq, record.uid, '', '', unpack(found.told) }
      tracks[#tracks + 1] = reply
    end
    replies[#replies + 1] = reply
  end
  if #used > 0 and (#KEYS ~= buckets + 3 or not keys.are_new(buckets, used)) then return nil end

  -- Write.
  if entry then
    local stream_id = journal.append(stream, entry) -- first, as in track.lua
    redis.call('HSET', record_key, 'seq', seq, field, balance)
    keys.keep_all(buckets, used, record.uid, stream_id)
    for i = 1, #tracks do tracks[i][6] = stream_id end
  end
  return replies
end
