-- The rows that one call may draw on, in the order in which they give, and the limits that hold for it. A pool is a
-- feature (for an entity '<feature>/<entity>', see lib/record), its cost, and what the call needs of it, counted in the
-- pool's own unit.
local ROW = '(%d+):([^:%s]+):([^:%s]+):([^:%s]+):(%S+)' -- see lib/record
local GATE = '@([^:%s]+):([^:%s]+):(%S+)'

local SECOND = 10000 -- positions from here on give only after those below
local OUT_OF_REACH = 'x'

local rows = {}

function rows.pool(feature, cost, cost_text, need)
  return { feature = feature, cost = cost, cost_text = cost_text, need = need, gates = {} }
end

-- The names of the fields that tell what the pools may draw on: of each its own, and after all of these, for an entity,
-- what it reads where that is not there, and the customer's own. `entity` is the number of the field that says whether
-- there is such an entity.
function rows.fields(pools)
  local fields = {}
  for p = 1, #pools do fields[p] = 'o:' .. pools[p].feature end
  for p = 1, #pools do
    if string.find(pools[p].feature, '/', 1, true) then
      local feature, entity = string.match(pools[p].feature, '^([^/]+)/(.+)$')
      pools[p].shared = #fields + 1
      pools[p].owner = feature
      fields[#fields + 1] = table.concat({ 'o:', feature, '/' })
      fields[#fields + 1] = 'o:' .. feature
      if not fields.entity then
        fields[#fields + 1] = 'o:/' .. entity
        fields.entity = #fields
      end
    end
  end
  return fields
end

-- Reads what a call needs of a pool. Nil if that is no amount, or has another sign than what it needs of its first.
function rows.need(text, first)
  local need = amount.read(text or '')
  if need and need ~= 0 and amount.less(need, 0) ~= amount.less(first or need, 0) then return nil end
  return need
end

-- Reads pools from ARGV[first] to ARGV[last] (or the last one), and the names of their fields. Nil if one is malformed.
function rows.pools(first, last)
  local pools = {}
  for i = first, last or #ARGV, 3 do
    local cost, need = amount.read(ARGV[i + 1] or ''), rows.need(ARGV[i + 2], pools[1] and pools[1].need)
    if not cost or not need or amount.less(cost, 0) then return nil end
    pools[#pools + 1] = rows.pool(ARGV[i], cost, ARGV[i + 1], need)
  end
  if #pools == 0 then return nil end
  return pools, rows.fields(pools)
end

-- An unlimited row gives before all others, the feature's own first; then rollovers, then the feature's own rows, then
-- those of credit systems; and in the same order those that give only after the others.
local function rank(p, floor, position)
  local is_own = p == 1
  if floor == '*' then return is_own and 0 or 1 end
  if floor == '^' then return 2 end
  local later = position < SECOND and 0 or 2
  return later + (is_own and 3 or 4)
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

-- The order fields of one pool: that of its rows, and, where an entity's rows are in another than the customer's, the
-- customer's.
local function orders_of(pool, order, record)
  local of_customer = record.read[HEAD_FIELDS + pool.shared + 1]
  order = order or record.read[HEAD_FIELDS + pool.shared]
  if not order then return of_customer end
  return order, of_customer
end

-- Limits and alerts stand before rows: whether there are any.
local function has_limits(order)
  local marked = order and string.byte(order)
  return marked == 33 or marked == 36 or marked == 64 -- '!', '$' or '@'
end

local function spend_limit(order) return amount.read(string.match(order, '%$(%d+)') or '') end

-- Reads the customer's alerts and limits. They hold for an entity's calls too, and count every row of the feature: for
-- that the rows of the customer that such a call cannot reach are read beside its own.
local function read_limits_of_customer(pool, order, own, properties, fields, found)
  pool.alerts, pool.spend = order, spend_limit(order)
  read_gates(pool, order, properties, fields, found)
  if not own or not string.find(order, '^[!$]') then return end
  for _, id, _, _, period in string.gmatch(order, ROW) do
    if not own[id] then
      local other = { id = id, period = period }
      pool.others = pool.others or {}
      pool.others[#pool.others + 1] = other
      fields[#fields + 1] = 'b:' .. id
      found[#found + 1] = other
    end
  end
end

-- Turns the order fields that were read with the record into rows in the order in which they give, without their
-- balances. Returns them, all that have a balance (gates and rows out of reach, too), and the names of their fields.
function rows.list(pools, record, properties)
  local list, fields, found, is_sorted = {}, {}, {}, true
  for p = 1, #pools do
    local pool = pools[p]
    local order, of_customer, own = record.read[HEAD_FIELDS + p], nil, nil
    if pool.shared then
      order, of_customer = orders_of(pool, order, record)
      if has_limits(of_customer) then own = {} end
    end
    if order then
      for position, id, floor, ceiling, period in string.gmatch(order, ROW) do
        local row = { -- with all its fields from the start: a table that grows costs as much as three
          id = id, pool = p, floor = floor, ceiling = ceiling, period = period, position = position + 0, rank = 0,
          before = 0, balance = 0, written = 0, text = '',
        }
        fields[#fields + 1] = 'b:' .. id
        found[#found + 1] = row
        if floor == OUT_OF_REACH then
          pool.others = pool.others or {}
          pool.others[#pool.others + 1] = row
        else
          row.rank = rank(p, floor, row.position)
          local last = list[#list]
          if last and by_rank_then_position(row, last) then is_sorted = false end
          list[#list + 1] = row
          pool.owned = true
          if own then own[id] = true end
        end
      end
      if has_limits(order) then
        if of_customer == nil then
          read_limits_of_customer(pool, order, nil, properties, fields, found)
        else
          pool.own_alerts, pool.own_spend = order, spend_limit(order)
          read_gates(pool, order, properties, fields, found)
        end
      end
    end
    if own then
      read_limits_of_customer(pool, of_customer, own, properties, fields, found)
    end
  end
  if not is_sorted then table.sort(list, by_rank_then_position) end
  return list, found, fields
end

-- Returns the rows that the pools may draw on, with their balances. `properties` are the digests of the call's
-- properties, with blanks between; nil: every usage limit is read.
function rows.read(key, pools, record, properties)
  local list, found, fields = rows.list(pools, record, properties)
  if #fields == 0 then return list end
  local balances = redis.call('HMGET', key, unpack(fields))
  for i = 1, #found do
    local row = found[i]
    row.before = amount.read(balances[i])
    row.balance, row.written, row.text = row.before, row.before, balances[i]
  end
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
