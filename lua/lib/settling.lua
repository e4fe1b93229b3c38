-- How one hold is settled. What was held too much goes back to the very rows that gave it, whatever they hold by now. A
-- row in a later period gets nothing: the period in which it was held is charged. Where a row is gone, its part goes to
-- the rows that the feature has now, as a refund would.
local FINALS_MAX = 16 -- in one call: with 64 rows on each side of a hold, still well below what `unpack` takes
local LARGEST = amount.read(string.rep('9', 24))

local settling = {}

-- Reads finals from ARGV[first] on, and the names of the fields that they need. Nil if one is malformed.
function settling.read(first)
  local count = arguments.whole(ARGV[first])
  if not count or count < 1 or count > FINALS_MAX then return nil end
  local finals, fields, at = {}, {}, first + 1
  for i = 1, count do
    local one = { hold_id = ARGV[at], op_id = ARGV[at + 1], call = ARGV[at + 3] }
    one.final = amount.read(ARGV[at + 2] or '')
    one.properties = ARGV[at + 4]
    local pools_count = arguments.whole(ARGV[at + 5])
    local last = at + 5 + 3 * (pools_count or 0)
    if not pools_count or last > #ARGV or not receipt.is_id(one.hold_id) then return nil end
    one.pools, one.orders = rows.pools(at + 6, last)
    if not one.pools or not one.final or fields['h:' .. one.hold_id] then return nil end
    finals[i] = one
    fields[i] = 'h:' .. one.hold_id
    fields[fields[i]] = true
    at = last + 1
  end
  fields[#fields + 1] = 'holds'
  return at == #ARGV + 1 and finals or nil, fields
end

-- Gives each final its hold. False if one is not there (any more).
function settling.find(finals, record)
  for i = 1, #finals do
    local text = record.read[HEAD_FIELDS + i]
    finals[i].hold = text and receipt.read(text)
    if not text or finals[i].hold.op_id ~= finals[i].op_id then return false end
    finals[i].mode = finals[i].hold.mode
  end
  return true
end

-- What of a hold stays held, and what was used beyond it.
local function compare(held, final)
  local is_flipped = held ~= 0 and final ~= 0 and amount.less(held, 0) ~= amount.less(final, 0)
  if is_flipped then return 0, final end
  if amount.less(amount.size(final), amount.size(held)) then return final, 0 end
  return held, amount.subtract(final, held)
end

-- A pool for every feature that a leg or gate of the hold names, and the names of their fields. Where a hold was an
-- entity's that is gone, the customer's rows are found all the same.
local function pools_of(hold)
  local pools, known = {}, {}
  local function add(legs)
    for i = 1, #legs do
      local leg = legs[i]
      if not known[leg.feature] then
        known[leg.feature] = true
        pools[#pools + 1] = rows.pool(leg.feature, 0, '0', 0)
      end
    end
  end
  add(hold.legs)
  add(hold.gates)
  return pools, rows.fields(pools)
end

-- Moves the rest of each leg back to its row or gate. What remains in `rest` found none, or not enough in it: what was
-- given in advance is taken back from what is above zero.
local function return_rests(legs, givers)
  for i = 1, #legs do
    local leg = legs[i]
    local row = leg.rest ~= 0 and givers[leg.row_id]
    if row and row.period ~= leg.period and row.period ~= '-' then
      leg.rest = 0
    elseif row and amount.less(leg.delta, 0) then
      row.balance = amount.add(row.balance, leg.rest)
      leg.rest = 0
    elseif row and amount.less(0, row.balance) then
      local part = amount.least(leg.rest, row.balance)
      row.balance = amount.subtract(row.balance, part)
      leg.rest = amount.subtract(leg.rest, part)
    end
  end
end

-- The pools with the need of the rest of a leg: as it is where the cost is the same, converted for the others. Usage
-- limits neither bound nor count what goes back.
local function pools_for(leg, pools)
  local needs, is_taken = {}, amount.less(leg.delta, 0)
  local units = amount.units_for(leg.rest, leg.cost)
  for p = 1, #pools do
    local pool = pools[p]
    local need = leg.rest
    if pool.cost_text ~= leg.cost_text then need = amount.multiply(units, pool.cost) or LARGEST end
    needs[p] = rows.pool(pool.feature, pool.cost, pool.cost_text, is_taken and amount.negate(need) or need)
    needs[p].spend, needs[p].own_spend, needs[p].others = pool.spend, pool.own_spend, pool.others
  end
  return needs
end

-- Gives back what is not kept of a hold. False if a balance leaves the range of amounts.
local function unhold(record_key, one, entry, changes, deltas)
  local hold = one.hold
  local pools, orders = pools_of(hold)
  if #pools == 0 then return true end
  local list, givers = draws.rows(record_key, pools, orders, nil), {}
  for i = 1, #list do givers[list[i].id] = list[i] end
  local gates = rows.gates(pools)
  for i = 1, #gates do givers[gates[i].id] = gates[i] end
  return_rests(hold.legs, givers)
  return_rests(hold.gates, givers)
  if not draws.journal(entry, 'unhold', list, pools, changes, deltas) then return false end
  list = draws.rows(record_key, one.pools, one.orders, '')
  for i = 1, #hold.legs do
    if hold.legs[i].rest ~= 0 then burn.draw(list, pools_for(hold.legs[i], one.pools), 'cap') end
  end
  return draws.journal(entry, 'unhold', list, {}, changes, deltas)
end

-- Adds the items and fields of one final. Returns the status that ends the call, if any.
function settling.decide(record_key, one, entry, changes, deltas)
  local hold, first_item = one.hold, entry.items
  local kept, beyond = compare(hold.value, one.final)
  if amount.subtract(one.pools[1].need, beyond) ~= 0 then return STATUS.INVALID end
  if first_item > 0 then journal.call(entry, one.call) end
  if kept ~= hold.value then
    receipt.split(hold, kept)
    if not unhold(record_key, one, entry, changes, deltas) then return STATUS.OUT_OF_RANGE end
  end
  local kind = draws.kind(one)
  if beyond ~= 0 and not draws.use(record_key, one, entry, changes, deltas) then return STATUS.OUT_OF_RANGE end
  if entry.items == first_item and amount.subtract(one.final, hold.value) ~= 0 then
    journal.add(entry, beyond ~= 0 and kind or 'unhold')
  end
  journal.add(entry, table.concat({ 'put hold', one.hold_id, 'null' }, ' '))
end
