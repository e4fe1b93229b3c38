-- What a call crosses on its way down: a balance that is used up, a limit that is reached, an alert that was asked for.
-- Each is seen once, by the call that crosses it, and again only after the balance has been above it again. It goes
-- into the call's own entry, so that it is told exactly when the call is kept.
local alerts = {}

local function total(list, p, which, positive_only)
  local sum = 0
  for i = 1, #list do
    local balance = list[i][which]
    if list[i].pool == p and not (positive_only and amount.less(balance, 0)) then sum = amount.add(sum, balance) end
  end
  return sum
end

-- Whether a total of the pool's rows fell from above the threshold to it, or below.
local function falls_to(list, p, threshold, positive_only)
  local before, after = total(list, p, 'before', positive_only), total(list, p, 'balance', positive_only)
  return amount.less(threshold, before) and not amount.less(threshold, after)
end

local function tell_limit(entry, pool, limit)
  local text = table.concat({ '{"feature_id":"', pool.feature, '","limit_type":"', limit, '"}' })
  journal.add(entry, table.concat({ 'put alert', table.concat({ limit, pool.feature }, '.'), text }, ' '))
end

-- Whether a row that has a bottom below zero is at it, and no other can go further below.
local function is_at_the_bottom(list, p)
  local is_bounded = false
  for i = 1, #list do
    if list[i].pool == p then
      local depth = burn.depth(list[i], 'reject')
      if depth == nil or amount.less(0, depth) then return false end
      if string.byte(list[i].floor) == 45 then is_bounded = true end -- '-'
    end
  end
  return is_bounded
end

-- Adds what was crossed to the entry.
function alerts.add(entry, list, pools)
  if list[1] and list[1].floor == '*' then return end
  for p = 1, #pools do
    local pool = pools[p]
    if pool.is_emptied and falls_to(list, p, 0, true) then tell_limit(entry, pool, 'included') end
    if pool.below then
      if pool.spend and pool.spare == 0 then
        tell_limit(entry, pool, 'spend_limit')
      elseif is_at_the_bottom(list, p) then
        tell_limit(entry, pool, 'max_purchase')
      end
    end
    for i = 1, #pool.gates do
      local gate = pool.gates[i]
      if amount.less(0, gate.before) and not amount.less(0, gate.balance) then
        tell_limit(entry, pool, 'usage_limit')
      end
    end
    for id, kind, threshold in string.gmatch(pool.alerts or '', '!([^:%s]+):(%a):(%-?%d+)') do
      if falls_to(list, p, amount.read(threshold), kind == 'r') then
        local text = table.concat({ '{"feature_id":"', pool.feature, '","usage_alert":"', id, '"}' })
        journal.add(entry, table.concat({ 'put alert', id, text }, ' '))
      end
    end
  end
end
