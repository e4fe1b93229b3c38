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
