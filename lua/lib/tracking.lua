-- How one use of a feature is taken, or given back.
local tracking = {}

-- Draws what the pools need; adds the items of what moved to the entry, and the fields to set to `changes`. Returns OK
-- and the deltas of the rows that moved, or REFUSED with every row as it was, or OUT_OF_RANGE.
function tracking.decide(entry, list, pools, mode, changes)
  if not burn.draw(list, pools, mode) then return STATUS.REFUSED end
  local is_refund, first_item = amount.less(pools[1].need, 0), entry.items
  local kind = is_refund and 'refund' or 'use'
  local deltas = journal.moves(entry, list, kind, changes)
  local gates = rows.gates(pools)
  if not deltas or (#gates > 0 and not journal.moves(entry, gates, kind, changes)) then return STATUS.OUT_OF_RANGE end
  if entry.items == first_item then journal.add(entry, kind) end
  if not is_refund then alerts.add(entry, list, pools) end
  return STATUS.OK, deltas
end

--- @usual
-- Returns the place, among usual rows (see lib/usual), of the balance that pays for a track with its pools from
-- ARGV[first] on, and what it needs; nil if it is not usual.
function tracking.payer(found, first)
  if not found then return nil end
  local need = ARGV[first + 3 * found.pool - 1]
  for i = 3, found.last, 2 do
    local balance = found.told[i] + 0
    if balance > need + 0 then return i, need end
    if balance > 0 then return nil end
  end
end

--- @usual
-- Takes that from the row: adds it to the entry, and to what the reply tells, after the last balance. Returns the field
-- to set, and to what.
function tracking.take(found, payer, need, entry)
  local told, last = found.told, found.last
  local id, delta, after = told[payer - 1], '-' .. need, string.format(DIGITS, told[payer] - need)
  told[payer], told[last + 1], told[last + 2] = after, id, delta
  journal.add(entry, 'use ' .. id .. ' ' .. delta .. ' ' .. after)
  return 'b:' .. id, after
end
