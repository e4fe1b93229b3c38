-- How an amount is drawn from rows, and given back to them. What is left is counted in the unit of one pool and
-- converted only when the next row that takes part is priced differently: one rounding for each pool that is entered.
local burn = {}

local function convert(left, from, to, pools)
  if from == to or pools[from].cost_text == pools[to].cost_text then return left end
  if from == 1 and left == pools[1].size then return pools[to].size end
  local units = left
  if from > 1 then units = amount.units_for(left, pools[from].cost) end
  return amount.multiply(units, pools[to].cost)
end

-- How many rows stand before the first whose pool costs nothing. What reaches that one is free: it moves nothing there,
-- and no row behind it gives or gets.
local function count_priced(list, pools)
  for i = 1, #list do
    if pools[list[i].pool].cost == 0 then return i - 1 end
  end
  return #list
end

-- Walks the first `count` rows once, moving each by at most room(row) (nil: no bound) in the direction of `step`.
local function walk(list, count, pools, left, unit, room, step)
  for i = 1, count do
    if left == 0 then break end
    local row = list[i]
    local most = room(row)
    if most == nil or amount.less(0, most) then
      left, unit = convert(left, unit, row.pool, pools), row.pool
      local part = left
      if most ~= nil then part = amount.least(most, left) end
      row.balance = step(row.balance, part)
      left = amount.subtract(left, part)
    end
  end
  return left, unit
end

local function above_zero(row) return row.balance end
local function below_zero(row) return amount.negate(row.balance) end
local function below_ceiling(row) return amount.subtract(amount.read(row.ceiling), row.balance) end
local function unbounded() return nil end
local function if_open_below(row)
  if row.floor == '~' then return nil end
  return 0
end

-- Takes what the pools need: first what is above zero; then, unless the mode is reject, from rows that may go below
-- (in mode overflow, any row). Returns what is left over.
function burn.take(list, pools, mode)
  for p = 1, #pools do pools[p].size = pools[p].need end
  local count = count_priced(list, pools)
  local left, unit = walk(list, count, pools, pools[1].size, 1, above_zero, amount.subtract)
  if count < #list then return 0 end
  if mode == 'reject' then return left end
  left = walk(list, count, pools, left, unit, mode == 'overflow' and unbounded or if_open_below, amount.subtract)
  return left
end

-- Gives back what the pools need (negative needs): first to rows below zero, then up to what each row was granted.
-- What exceeds that is dropped, except in mode overflow.
function burn.give_back(list, pools, mode)
  for p = 1, #pools do pools[p].size = amount.negate(pools[p].need) end
  local count = count_priced(list, pools)
  local left, unit = walk(list, count, pools, pools[1].size, 1, below_zero, amount.add)
  walk(list, count, pools, left, unit, mode == 'overflow' and unbounded or below_ceiling, amount.add)
end
