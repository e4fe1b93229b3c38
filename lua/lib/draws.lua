-- Several draws in one write: each finds rows and usage limits as those before it left them.
local draws = {}

local balances = {} -- by row or gate id: what this call has left there so far

local function take_over(list)
  for i = 1, #list do
    local row = list[i]
    row.before = balances[row.id] or row.before
    row.balance = row.before
  end
end

-- The rows of the pools; `properties` as in rows.read.
function draws.rows(record_key, pools, orders, properties)
  for p = 1, #pools do
    pools[p].gates, pools[p].others = {}, nil
  end
  local list = rows.read(record_key, pools, records.read(record_key, nil, orders), properties)
  take_over(list)
  take_over(rows.gates(pools))
  for p = 1, #pools do take_over(pools[p].others or {}) end
  return list
end

-- Adds the items of what has moved, and the deltas of its rows. False if a balance leaves the range of amounts.
function draws.journal(entry, kind, list, pools, changes, deltas)
  local gates = rows.gates(pools)
  local moved = journal.moves(entry, list, kind, changes)
  if not moved or not journal.moves(entry, gates, kind, changes) then return false end
  for i = 1, #moved do deltas[#deltas + 1] = moved[i] end
  for i = 1, #list do balances[list[i].id] = list[i].balance end
  for i = 1, #gates do balances[gates[i].id] = gates[i].balance end
  return true
end

function draws.kind(use) return amount.less(use.pools[1].need, 0) and 'refund' or 'use' end

-- Takes what the pools of a use need, or gives it back; mode cap or overflow. Returns its rows, or false if a balance
-- leaves the range of amounts.
function draws.use(record_key, use, entry, changes, deltas)
  local kind, pools = draws.kind(use), use.pools
  local list = draws.rows(record_key, pools, use.orders, use.properties)
  burn.draw(list, pools, use.mode)
  if not draws.journal(entry, kind, list, pools, changes, deltas) then return false end
  if kind == 'use' then alerts.add(entry, list, pools) end
  return list
end
