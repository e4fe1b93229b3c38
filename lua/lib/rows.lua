-- The rows that one call may draw on, in the order in which they give, and the limits that hold for it. A pool is a
-- feature, its cost, and what the call needs of it, counted in the pool's own unit.
local ROW = '(%d+):([^:%s]+):([^:%s]+):([^:%s]+):(%S+)' -- see lib/record
local GATE = '@([^:%s]+):([^:%s]+):(%S+)'

local rows = {}

function rows.pool(feature, cost, cost_text, need)
  return { feature = feature, cost = cost, cost_text = cost_text, need = need, gates = {} }
end

-- Reads pools from ARGV[first] to ARGV[last] (or the last one), and the names of their order fields. Nil if one is
-- malformed.
function rows.pools(first, last)
  local pools, fields = {}, {}
  for i = first, last or #ARGV, 3 do
    local cost, need = amount.read(ARGV[i + 1] or ''), amount.read(ARGV[i + 2] or '')
    if not cost or not need or amount.less(cost, 0) then return nil end
    local first_need = pools[1] and pools[1].need or need
    if need ~= 0 and amount.less(need, 0) ~= amount.less(first_need, 0) then return nil end
    pools[#pools + 1] = rows.pool(ARGV[i], cost, ARGV[i + 1], need)
    fields[#fields + 1] = 'o:' .. ARGV[i]
  end
  if #pools == 0 then return nil end
  return pools, fields
end

-- An unlimited row gives before all others, the feature's own first; then rollovers, then the feature's own rows, then
-- those of credit systems.
local function rank(row)
  local is_own = row.pool == 1
  if row.floor == '*' then return is_own and 0 or 1 end
  if row.floor == '^' then return 2 end
  return is_own and 3 or 4
end

local function by_rank_then_position(a, b)
  if a.rank ~= b.rank then return a.rank < b.rank end
  return a.position < b.position
end

-- Whether a usage limit counts this call: every property it asks for is among those of the call.
local function counts(filter, properties)
  if filter == '-' or not properties then return true end
  for digest in string.gmatch(filter, '[^.]+') do
    if not string.find(properties, digest, 1, true) then return false end
  end
  return true
end

local function read_gates(pool, order, properties, fields, found)
  for id, filter, period in string.gmatch(order, GATE) do
    if counts(filter, properties) then
      local gate = { id = id, period = period }
      pool.gates[#pool.gates + 1] = gate
      fields[#fields + 1] = 'b:' .. id
      found[#found + 1] = gate
    end
  end
end

-- Turns the order fields that were read with the record into rows with their balances. `properties` are the digests of
-- the call's properties, with blanks between; nil: every usage limit is read.
function rows.read(key, pools, record, properties)
  local list, fields, found, is_sorted = {}, {}, {}, true
  for p = 1, #pools do
    local order = record.read[HEAD_FIELDS + p]
    if order then
      for position, id, floor, ceiling, period in string.gmatch(order, ROW) do
        local row = { id = id, pool = p, floor = floor, ceiling = ceiling, period = period }
        row.position = tonumber(position)
        row.rank = rank(row)
        local last = list[#list]
        if last and by_rank_then_position(row, last) then is_sorted = false end
        list[#list + 1] = row
        fields[#fields + 1] = 'b:' .. id
        found[#found + 1] = row
        pools[p].owned = true
      end
      local marked = string.byte(order)
      if marked == 33 or marked == 36 or marked == 64 then -- '!', '$' or '@': limits stand before rows
        pools[p].alerts = order
        pools[p].spend = amount.read(string.match(order, '%$(%d+)') or '')
        read_gates(pools[p], order, properties, fields, found)
      end
    end
  end
  if #fields == 0 then return list end
  local balances = redis.call('HMGET', key, unpack(fields))
  for i = 1, #found do
    local row = found[i]
    row.before = amount.read(balances[i])
    row.balance, row.written, row.text = row.before, row.before, balances[i]
  end
  if not is_sorted then table.sort(list, by_rank_then_position) end
  return list
end

-- Notes the period of each row and gate of an order field.
function rows.add_periods(periods, order)
  for id, _, period in string.gmatch(order, GATE) do periods[id] = period end
  for _, id, _, _, period in string.gmatch(order, ROW) do periods[id] = period end
end

-- Appends the number of rows and then id and raw balance of each to a reply.
function rows.reply(reply, list)
  reply[#reply + 1] = #list
  for i = 1, #list do
    reply[#reply + 1] = list[i].id
    reply[#reply + 1] = amount.text_of(list[i])
  end
  return reply
end

-- All gates of the pools.
function rows.gates(pools)
  local gates = {}
  for p = 1, #pools do
    for i = 1, #pools[p].gates do gates[#gates + 1] = pools[p].gates[i] end
  end
  return gates
end
