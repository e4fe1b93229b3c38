-- What a hold remembers: one JSON text in field `h:<hold id>` of the customer's record, and in the journal.
--   {"feature_id":…,"op_id":…,"mode":…,"expires_at":…,"value_nanos":…,"used_nanos":…,
--    "legs":[[row id, feature id, cost, delta, period],…],"gates":[[gate id, feature id, delta, period],…],
--    "properties":{…}}
-- A leg is what one row gave (or got, delta above zero): in the row's own unit, at the cost of its pool then, in the
-- period of the row then. Legs stand in the order in which the rows gave. A gate is a usage limit that counted the
-- hold. Amounts are written and read as text, since a JSON number in Lua keeps 14 digits; the properties are the
-- caller's and stand last, so that nothing in them is taken for ours. core/holds.py reads the same text.
local HOLD = '^{"feature_id":"([^"]+)","op_id":"([^"]+)","mode":"(%l+)","expires_at":(%d+),"value_nanos":(-?%d+),'
  .. '"used_nanos":(%d+),"legs":%[(.-)%],"gates":%[(.-)%],"properties":(.*)}$'
local LEG = '%["([^"]+)","([^"]+)",(%d+),(-?%d+),"([^"]+)"%]'
local GATE_LEG = '%["([^"]+)","([^"]+)",(-?%d+),"([^"]+)"%]'
local ONE_UNIT = '1000000000' -- the cost of a feature in its own unit

local receipt = {}

-- Whether a text can name a hold: one word, in the journal too, that needs no escapes in JSON.
function receipt.is_id(text) return text ~= nil and string.find(text, '^[%w%%._~-]+$') ~= nil end

function receipt.text(hold)
  local legs, gates = {}, {}
  for i = 1, #hold.legs do
    local leg = hold.legs[i]
    local named = table.concat({ '["', leg.row_id, '","', leg.feature, '",' })
    legs[i] = table.concat({ named, leg.cost_text, ',', amount.text(leg.delta), ',"', leg.period, '"]' })
  end
  for i = 1, #hold.gates do
    local gate = hold.gates[i]
    local named = table.concat({ '["', gate.row_id, '","', gate.feature, '",' })
    gates[i] = table.concat({ named, amount.text(gate.delta), ',"', gate.period, '"]' })
  end
  return table.concat({
    '{"feature_id":"', hold.feature, '","op_id":"', hold.op_id, '","mode":"', hold.mode,
    '","expires_at":', amount.text(hold.expires_at), ',"value_nanos":', amount.text(hold.value),
    ',"used_nanos":', amount.text(hold.used), ',"legs":[', table.concat(legs, ','),
    '],"gates":[', table.concat(gates, ','), '],"properties":', hold.properties, '}',
  })
end

function receipt.read(text)
  local feature, op_id, mode, expires_at, value, used, legs, gates, properties = string.match(text, HOLD)
  local hold = { feature = feature, op_id = op_id, mode = mode, expires_at = tonumber(expires_at) }
  hold.value, hold.used, hold.properties = amount.read(value), amount.read(used), properties
  hold.legs, hold.gates = {}, {}
  for row_id, pool, cost, delta, period in string.gmatch(legs, LEG) do
    local leg = { row_id = row_id, feature = pool, cost_text = cost, cost = amount.read(cost), period = period }
    leg.delta = amount.read(delta)
    hold.legs[#hold.legs + 1] = leg
  end
  for row_id, pool, delta, period in string.gmatch(gates, GATE_LEG) do
    local gate = { row_id = row_id, feature = pool, delta = amount.read(delta), period = period }
    hold.gates[#hold.gates + 1] = gate
  end
  return hold
end

local function part_above(balance) return amount.less(balance, 0) and 0 or balance end
local function part_below(balance) return amount.less(0, balance) and 0 or balance end

-- Adds what each row of the list moved on one side of zero, seen through `part`.
local function add_legs(legs, list, pools, part)
  for i = 1, #list do
    local row = list[i]
    local delta = amount.subtract(part(row.balance), part(row.before))
    if delta ~= 0 then
      local pool = pools[row.pool]
      local leg = { row_id = row.id, feature = pool.feature, cost_text = pool.cost_text, cost = pool.cost }
      leg.delta, leg.period = delta, row.period
      legs[#legs + 1] = leg
    end
  end
end

-- Adds the legs and gates of what was just drawn. Rows give down to zero before any goes below, and are raised to zero
-- before any goes above: a row that crossed zero has two legs, and others may stand between them.
function receipt.add_drawn(hold, list, pools)
  local is_refund = amount.less(pools[1].need, 0)
  hold.legs, hold.gates = {}, {}
  add_legs(hold.legs, list, pools, is_refund and part_below or part_above)
  add_legs(hold.legs, list, pools, is_refund and part_above or part_below)
  for p = 1, #pools do
    for i = 1, #pools[p].gates do
      local gate = pools[p].gates[i]
      local delta = amount.subtract(gate.balance, gate.before)
      if delta ~= 0 then
        local leg = { row_id = gate.id, feature = pools[p].feature, delta = delta, period = gate.period }
        hold.gates[#hold.gates + 1] = leg
      end
    end
  end
end

-- Splits each leg into what `final` still needs, as if that had been drawn instead, and `rest`, which is to go back:
-- the last that gave is the first that gets. Stored amounts are kept; units are converted only between costs.
function receipt.split(hold, final)
  local left, cost_text, cost = amount.size(final), ONE_UNIT, nil
  local kept = {} -- by feature; of its own feature a hold counts all units, wherever they were drawn
  for i = 1, #hold.legs do
    local leg = hold.legs[i]
    if left ~= 0 and leg.cost_text ~= cost_text then
      local units = cost and amount.units_for(left, cost) or left
      left, cost_text, cost = amount.multiply(units, leg.cost), leg.cost_text, leg.cost
    end
    local part = amount.least(amount.size(leg.delta), left)
    left = amount.subtract(left, part)
    leg.rest = amount.subtract(amount.size(leg.delta), part)
    kept[leg.feature] = amount.add(kept[leg.feature] or 0, part)
  end
  kept[hold.feature] = amount.size(final)
  for i = 1, #hold.gates do
    local gate = hold.gates[i]
    local counted = amount.size(gate.delta)
    gate.rest = amount.subtract(counted, amount.least(counted, kept[gate.feature] or 0))
  end
end

-- All open holds of a record. A change of rows is rare, so that the whole record may be read for it.
function receipt.open(record_key)
  local holds = {}
  if tonumber(redis.call('HGET', record_key, 'holds') or 0) == 0 then return holds end
  local fields = redis.call('HGETALL', record_key)
  for i = 1, #fields, 2 do
    if string.find(fields[i], '^h:') then holds[#holds + 1] = receipt.read(fields[i + 1]) end
  end
  return holds
end

-- The earlier of `due` (text, or '') and the moments at which these holds expire.
function receipt.due(holds, due)
  local earliest = tonumber(due)
  for i = 1, #holds do
    if not earliest or holds[i].expires_at < earliest then earliest = holds[i].expires_at end
  end
  return earliest or ''
end

-- Whether one of these holds may still have to give something back to a row.
function receipt.has_leg(holds, row_id)
  for i = 1, #holds do
    for j = 1, #holds[i].legs do
      if holds[i].legs[j].row_id == row_id then return true end
    end
  end
  return false
end

-- What releasing all these holds gives back to each row and gate that is there, in the period in which it was held.
function receipt.returns(holds, periods)
  local returns = {}
  local function add(legs)
    for i = 1, #legs do
      local leg = legs[i]
      local period = periods[leg.row_id]
      if period == leg.period or period == '-' then
        returns[leg.row_id] = amount.subtract(returns[leg.row_id] or 0, leg.delta)
      end
    end
  end
  for i = 1, #holds do
    add(holds[i].legs)
    add(holds[i].gates)
  end
  return returns
end
