-- Whether rows can pay for what is asked. One pool answers. The own feature if it can afford it, else the first credit
-- system that can, else the first credit system that the customer has, else the own feature if it has that. Pools are
-- never added up: only track spans.
local checking = {}

-- Whether the usage limits let the call through: those of the feature whatever gives, those of a system if it gives.
local function passes(pool)
  if #pool.gates == 0 then return true end
  local headroom = burn.headroom(pool)
  return not amount.less(headroom, pool.need)
end

local function affords(pools, pool)
  if not pool.owned then return false end
  if pool.is_unlimited or amount.less(pool.need, 0) then return true end
  if not passes(pools[1]) or not passes(pool) then return false end
  local depth = burn.tighter(pool.depth, pool.spare)
  return depth == nil or not amount.less(amount.add(pool.remaining, depth), pool.need)
end

-- Returns OK or REFUSED, and the number of the pool that answers, or 0.
function checking.decide(list, pools)
  for p = 1, #pools do
    pools[p].remaining, pools[p].depth = 0, 0
  end
  burn.measure_spending(list, pools)
  for i = 1, #list do
    local row, pool = list[i], pools[list[i].pool]
    if row.floor == '*' then pool.is_unlimited = true end
    if amount.less(0, row.balance) then pool.remaining = amount.add(pool.remaining, row.balance) end
    local depth = burn.depth(row, 'reject')
    pool.depth = pool.depth and depth and amount.add(pool.depth, depth)
  end
  local answer, chosen = STATUS.REFUSED, 0
  if pools[1].owned then chosen = 1 end
  for p = #pools, 2, -1 do
    if pools[p].owned then chosen = p end
  end
  for p = #pools, 1, -1 do
    if affords(pools, pools[p]) then answer, chosen = STATUS.OK, p end
  end
  return answer, chosen
end

--- @usual
-- The same of usual rows (see lib/usual), for a check with its pools from ARGV[first] on; nil if it is not usual.
function checking.usual(found, first)
  if not found then return nil end
  local left = 0
  for i = 3, found.last, 2 do
    local balance = found.told[i] + 0
    if balance > 0 then left = left + balance end -- a sum so large that it is rounded is beyond any need
  end
  if left >= ARGV[first + 3 * found.pool - 1] + 0 then return STATUS.OK, found.pool end
  if found.stops then return STATUS.REFUSED, found.pool end
end
