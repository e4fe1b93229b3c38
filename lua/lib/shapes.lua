-- Several calls on one record: what is the same for many of them is worked out once, and nothing is read twice. Calls
-- have the same shape if they name the same pools at the same costs, and have the same properties.
local shapes = { all = {} }

local by_feature = {} -- the shapes whose first pool has this name
local known = {} -- by the name of its field: a balance as the calls so far have left it, and its text

local function fits(shape, properties, first, last)
  local pools = shape.pools
  if shape.properties ~= properties or 3 * #pools ~= last - first + 1 then return false end
  for p = 1, #pools do
    local at = first + 3 * p - 3
    if ARGV[at] ~= pools[p].feature or ARGV[at + 1] ~= pools[p].cost_text then return false end
  end
  return true
end

-- Returns the shape of a call with the pools in ARGV[first] to ARGV[last], nil if they are malformed.
function shapes.of(properties, first, last)
  local found = by_feature[ARGV[first]] or {}
  for i = 1, #found do
    if fits(found[i], properties, first, last) then return found[i] end
  end
  local shape = { properties = properties }
  shape.pools, shape.orders = rows.pools(first, last)
  if not shape.pools then return nil end
  by_feature[ARGV[first]] = found
  found[#found + 1] = shape
  shapes.all[#shapes.all + 1] = shape
  return shape
end

-- Returns what a call of the shape needs of each pool, nil if it is malformed.
function shapes.needs(shape, first)
  local needs, count = shape.needs, #shape.pools
  for p = 1, count do
    if not needs or needs.texts[p] ~= ARGV[first + 3 * p - 1] then needs = nil end
  end
  if needs then return needs end -- as those of the call before
  needs = { texts = {} }
  for p = 1, count do
    needs.texts[p] = ARGV[first + 3 * p - 1]
    needs[p] = rows.need(needs.texts[p], needs[1])
    if not needs[p] then return nil end
  end
  shape.needs = needs
  return needs
end

-- Reads the record with the order fields of all shapes. Returns as records.read does.
function shapes.read(key)
  local names, places = {}, {}
  for i = 1, #shapes.all do
    local orders = shapes.all[i].orders
    for f = 1, #orders do
      if not places[orders[f]] then
        names[#names + 1] = orders[f]
        places[orders[f]] = #names
      end
    end
  end
  local record, status = records.read(key, nil, names)
  for i = 1, #shapes.all do
    local shape, read = shapes.all[i], {}
    for f = 1, #shape.orders do
      read[HEAD_FIELDS + f] = record.read[HEAD_FIELDS + places[shape.orders[f]]]
    end
    shape.read = read
    shape.has_entity = not shape.orders.entity or read[HEAD_FIELDS + shape.orders.entity]
  end
  return record, status
end

-- Reads the balances that are not known yet.
local function read_balances(key, fields)
  local missing = {}
  for i = 1, #fields do
    if not known[fields[i]] then missing[#missing + 1] = fields[i] end
  end
  if #missing == 0 then return end
  local balances = redis.call('HMGET', key, unpack(missing))
  for i = 1, #missing do known[missing[i]] = { amount.read(balances[i]), balances[i] } end
end

-- Returns the rows that a call of the shape may draw on, as those before it have left them, and its pools.
function shapes.rows(key, shape, needs)
  local pools = shape.pools
  if not shape.list then
    shape.list, shape.found, shape.fields = rows.list(pools, shape, shape.properties)
    read_balances(key, shape.fields)
  end
  for p = 1, #pools do
    local pool = pools[p]
    pool.need, pool.headroom, pool.spare, pool.is_emptied, pool.below = needs[p], nil, nil, nil, nil
  end
  for i = 1, #shape.found do
    local row, held = shape.found[i], known[shape.fields[i]]
    row.before, row.balance, row.written, row.text = held[1], held[1], held[1], held[2]
  end
  return shape.list, pools
end

-- Lets the calls after it find what a call has left in its rows and gates.
function shapes.keep(shape)
  for i = 1, #shape.found do
    local row = shape.found[i]
    if row.balance ~= row.before then
      local held = known[shape.fields[i]]
      held[1], held[2] = row.balance, amount.text_of(row)
    end
  end
end
