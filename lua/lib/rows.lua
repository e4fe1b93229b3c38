-- The rows that one call may draw on, in burn order: the feature's own first, then those of the credit systems that
-- price it. A pool is a feature, its cost, and what the call needs of it, counted in the pool's own unit.
local ROW = '(%d+):([^:%s]+):([^:%s]+):([^:%s]+):(%S+)' -- see lib/record

local rows = {}

-- Reads pools from ARGV[first] on, and the names of their order fields. Nil if one is malformed.
function rows.pools(first)
  local pools, fields = {}, {}
  for i = first, #ARGV, 3 do
    local cost, need = amount.read(ARGV[i + 1] or ''), amount.read(ARGV[i + 2] or '')
    if not cost or not need or amount.less(cost, 0) then return nil end
    local first_need = pools[1] and pools[1].need or need
    if need ~= 0 and amount.less(need, 0) ~= amount.less(first_need, 0) then return nil end
    pools[#pools + 1] = { cost = cost, cost_text = ARGV[i + 1], need = need }
    fields[#fields + 1] = 'o:' .. ARGV[i]
  end
  if #pools == 0 then return nil end
  return pools, fields
end

local function by_pool_then_position(a, b)
  if (a.pool == 1) ~= (b.pool == 1) then return a.pool == 1 end
  return a.position < b.position
end

-- Turns the order fields that were read with the record into rows with their balances.
function rows.read(key, pools, record)
  local list, fields, systems = {}, {}, 0
  for p = 1, #pools do
    local order = record.read[HEAD_FIELDS + p]
    if order then
      pools[p].owned = true
      if p > 1 then systems = systems + 1 end
      for position, id, floor, ceiling, period in string.gmatch(order, ROW) do
        local row = { id = id, pool = p, floor = floor, ceiling = ceiling, period = period }
        row.position = tonumber(position)
        list[#list + 1] = row
        fields[#fields + 1] = 'b:' .. id
      end
    end
  end
  if #list == 0 then return list end
  local balances = redis.call('HMGET', key, unpack(fields))
  for i = 1, #list do
    list[i].before = amount.read(balances[i])
    list[i].balance = list[i].before
  end
  if systems > 1 then table.sort(list, by_pool_then_position) end
  return list
end

-- Appends the number of rows and then id and raw balance of each to a reply.
function rows.reply(reply, list)
  reply[#reply + 1] = #list
  for i = 1, #list do
    reply[#reply + 1] = list[i].id
    reply[#reply + 1] = amount.text(list[i].balance)
  end
  return reply
end
