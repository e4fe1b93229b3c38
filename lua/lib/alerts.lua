-- What a call crosses on its way down: a balance that is used up, a limit that is reached, an alert that was asked for.
-- Each is seen once, by the call that crosses it, and again only after the balance has been above it again. It goes
-- into the call's own entry, so that it is told exactly when the call is kept.
local alerts = {}

local function total(list, p, which, positive_only)
  local sum = 0
  for i = 1, #list do
    local balance, is_meant = list[i][which], not p or list[i].pool == p
    if is_meant and not (positive_only and amount.less(balance, 0)) then sum = amount.add(sum, balance) end
  end
  return sum
end

-- Whether a total of the pool's rows, and of what lies in others, fell from above the threshold to it, or below.
local function falls_to(list, p, threshold, positive_only, in_others)
  local before, after = total(list, p, 'before', positive_only), total(list, p, 'balance', positive_only)
  before, after = amount.add(before, in_others or 0), amount.add(after, in_others or 0)
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

-- Tells of the alerts of an order field that were crossed. The customer's count rows that others may draw on, too.
local function tell_alerts(entry, list, p, order, feature, others)
  for id, kind, threshold in string.gmatch(order, '!([^:%s]+):(%a):(%-?%d+)') do
    local positive_only = kind == 'r'
    local in_others = others and total(others, nil, 'balance', positive_only)
    if falls_to(list, p, amount.read(threshold), positive_only, in_others) then
      local text = table.concat({ '{"feature_id":"', feature, '","usage_alert":"', id, '"}' })
      journal.add(entry, table.concat({ 'put alert', id, text }, ' '))
    end
  end
end

-- Adds what was crossed to the entry.
function alerts.add(entry, list, pools)
  if list[1] and list[1].floor == '*' then return end
  for p = 1, #pools do
    local pool = pools[p]
    if pool.is_emptied and falls_to(list, p, 0, true) then tell_limit(entry, pool, 'included') end
    if pool.below then
      if pool.spare == 0 then
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
    if pool.alerts then tell_alerts(entry, list, p, pool.alerts, pool.owner or pool.feature, pool.others) end
    if pool.own_alerts then tell_alerts(entry, list, p, pool.own_alerts, pool.feature) end
  end
end
