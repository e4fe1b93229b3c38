-- How an amount is drawn from rows, and given back to them. What is left is counted in the unit of one pool and
-- converted only when the next row that takes part is priced differently: one rounding for each pool that is entered.
local burn = {}

-- What `left`, counted in the unit of pool `from`, is in the unit of pool `to`.
local function convert(left, from, to, pools)
  if from == to or pools[from].cost_text == pools[to].cost_text then return left end
  if from == 1 and left == pools[1].size then return pools[to].size end
  local units = left
  if from > 1 then units = amount.units_for(left, pools[from].cost) end
  return amount.multiply(units, pools[to].cost)
end

-- How many rows stand before the first whose pool costs nothing, and whether there is one. What reaches that one is
-- free: it moves nothing there, and no row behind it gives or gets. Behind an unlimited row none does either.
local function count_priced(list, pools)
  for i = 1, #list do
    if pools[list[i].pool].cost == 0 then return i - 1, true end
    if list[i].floor == '*' then return i, false end
  end
  return #list, false
end

-- Walks the first `count` rows once, moving each by at most room(row, pool) (nil: no bound) in the direction of `step`.
local function walk(list, count, pools, left, unit, room, step)
  for i = 1, count do
    if left == 0 then break end
    local row = list[i]
    local pool = pools[row.pool]
    local most = room(row, pool)
    if most == nil or amount.less(0, most) then
      left, unit = convert(left, unit, row.pool, pools), row.pool
      local part = left
      if most ~= nil then part = amount.least(most, left) end
      row.balance = step(row.balance, part)
      pool.taken = amount.add(pool.taken, part)
      if pool.spare then pool.spare = amount.subtract(pool.spare, part) end
      if not amount.less(0, row.balance) then pool.is_emptied = true end
      if amount.less(row.balance, 0) then pool.below = true end
      left = amount.subtract(left, part)
    end
  end
  return left, unit
end

-- The least of two bounds, where nil is none.
function burn.tighter(a, b)
  if a == nil then return b end
  if b == nil then return a end
  return amount.least(a, b)
end

local function not_negative(a)
  if amount.less(a, 0) then return 0 end
  return a
end

-- What the usage limits of a pool still let through, nil without any. More may have been used: that is nothing, too.
function burn.headroom(pool)
  local least
  for i = 1, #pool.gates do least = burn.tighter(least, not_negative(pool.gates[i].before)) end
  return least
end

-- How much further below zero a row may go; nil: without bound. A seat goes below, but not for a call that insists on
-- having it all. A row that is beyond its bound already goes no further, and takes nothing from others.
function burn.depth(row, mode)
  if row.floor == '^' then return 0 end
  if mode == 'overflow' or row.floor == '~' or row.floor == '*' then return nil end
  if row.floor == 'seat' then
    if mode == 'reject' then return 0 end
    return nil
  end
  if row.floor == '0' then return 0 end
  return not_negative(amount.subtract(amount.least(row.balance, 0), amount.read(row.floor)))
end

-- What is left of a limit once what is below zero in these rows (of a pool, if it is named) is counted.
local function spared(limit, list, p)
  for i = 1, #list do
    if (not p or list[i].pool == p) and amount.less(list[i].balance, 0) then
      limit = not_negative(amount.add(limit, list[i].balance))
    end
  end
  return limit
end

-- What the spend limits still allow below zero, nil without one: an entity's over the rows that its calls draw on, the
-- customer's over all rows of the feature.
function burn.measure_spending(list, pools)
  for p = 1, #pools do
    local pool = pools[p]
    if pool.spend then pool.spare = spared(pool.spend, list, p) end
    if pool.spare and pool.others then pool.spare = spared(pool.spare, pool.others) end
    if pool.own_spend then pool.spare = burn.tighter(pool.spare, spared(pool.own_spend, list, p)) end
  end
end

local function within_gates(most, pool)
  if pool.headroom == nil then return most end
  return burn.tighter(most, amount.subtract(pool.headroom, pool.taken))
end

local function above_zero(row, pool)
  if row.floor == '*' then return nil end
  return within_gates(row.balance, pool)
end

local function below(mode)
  return function(row, pool) return within_gates(burn.tighter(burn.depth(row, mode), pool.spare), pool) end
end

local function up_to_zero(row) return amount.negate(row.balance) end

local function up_to_ceiling(row)
  if row.floor == '^' then return 0 end
  return amount.subtract(amount.read(row.ceiling), row.balance)
end

local function without_ceiling(row)
  if row.floor == '^' then return 0 end
  return nil
end

-- Counts on every usage limit what its pool gave: of the feature itself, all the units, wherever they were drawn.
local function count_usage(pools, units)
  pools[1].taken = units
  for p = 1, #pools do
    local gates = pools[p].taken ~= 0 and pools[p].gates or {}
    for i = 1, #gates do gates[i].balance = amount.subtract(gates[i].before, pools[p].taken) end
  end
end

-- Takes what the pools need: first what is above zero, then from rows that may go below. Usage limits bound what is
-- taken, except in mode overflow; an unlimited row gives everything, and nothing else is touched. Returns what is left
-- over, and the unit it is counted in.
function burn.take(list, pools, mode)
  local is_unlimited = list[1] ~= nil and list[1].floor == '*'
  for p = 1, #pools do
    pools[p].size, pools[p].taken = pools[p].need, 0
    local is_bounded = #pools[p].gates > 0 and not is_unlimited and mode ~= 'overflow'
    if is_bounded then pools[p].headroom = burn.headroom(pools[p]) end
  end
  local wanted, refused = pools[1].size, 0
  if pools[1].headroom and amount.less(pools[1].headroom, wanted) then
    wanted, refused = pools[1].headroom, amount.subtract(wanted, pools[1].headroom)
  end
  local count, is_free = count_priced(list, pools)
  local left, unit = walk(list, count, pools, wanted, 1, above_zero, amount.subtract)
  if is_free then
    left = 0
  elseif left ~= 0 then
    burn.measure_spending(list, pools)
    left, unit = walk(list, count, pools, left, unit, below(mode), amount.subtract)
  end
  local units_left = left
  if unit > 1 and left ~= 0 then units_left = amount.units_for(left, pools[unit].cost) end
  if not is_unlimited then count_usage(pools, amount.subtract(wanted, amount.least(wanted, units_left))) end
  if refused ~= 0 then return refused, 1 end
  return left, unit
end

-- Gives back what the pools need (negative needs): first to rows below zero, then up to what each row was granted.
-- What exceeds that is dropped, except in mode overflow. A usage limit is not given back, and a rollover not refilled.
function burn.give_back(list, pools, mode)
  for p = 1, #pools do
    pools[p].size, pools[p].taken = amount.negate(pools[p].need), 0
  end
  local count = count_priced(list, pools)
  local left, unit = walk(list, count, pools, pools[1].size, 1, up_to_zero, amount.add)
  walk(list, count, pools, left, unit, mode == 'overflow' and without_ceiling or up_to_ceiling, amount.add)
end

-- Takes what the pools need, or gives it back. False, with every row as it was, if mode reject finds too little.
function burn.draw(list, pools, mode)
  if amount.less(pools[1].need, 0) then
    burn.give_back(list, pools, mode)
  elseif burn.take(list, pools, mode) ~= 0 and mode == 'reject' then
    for i = 1, #list do list[i].balance = list[i].before end
    return false
  end
  return true
end
