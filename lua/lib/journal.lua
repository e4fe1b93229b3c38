-- The one place where an entry is written. core/journal.py says what its fields mean and reads them back.
local journal = {}

--- @usual
-- Opens the entry of one call; `seq` is the customer's number after it.
function journal.open(record, customer_id, seq, call)
  local entry = { 'c', customer_id, 'u', record.uid, 'n', seq, 'k0', call, nil, nil, items = 0 } -- room for an item
  if record.clock then
    entry[#entry + 1] = 't'
    entry[#entry + 1] = record.clock
  end
  return entry
end

--- @usual
-- Says that the next item is the first of another call.
function journal.call(entry, call)
  entry[#entry + 1] = 'k' .. entry.items
  entry[#entry + 1] = call
end

-- Takes back what was put into the entry since it had so many fields and items.
function journal.rewind(entry, fields, items)
  for i = #entry, fields + 1, -1 do entry[i] = nil end
  entry.items = items
end

--- @usual
function journal.add(entry, text)
  entry[#entry + 1] = entry.items
  entry[#entry + 1] = text
  entry.items = entry.items + 1
end

function journal.balance(entry, kind, row_id, delta, after)
  journal.add(entry, kind .. ' ' .. row_id .. ' ' .. amount.text(delta) .. ' ' .. amount.text(after))
end

-- Empties a row: what is left expires, what is below zero is forgiven. An empty row gives an item only if `always`.
function journal.expire(entry, row_id, balance, always)
  if amount.less(balance, 0) then
    journal.balance(entry, 'forgive', row_id, amount.negate(balance), 0)
  elseif balance ~= 0 or always then
    journal.balance(entry, 'expire', row_id, amount.negate(balance), 0)
  end
end

-- Adds to the entry and to the fields to set what has moved of the rows. Returns id and delta of each that did, or nil
-- if a balance would leave the range of amounts.
function journal.moves(entry, list, kind, changes)
  local deltas = { nil, nil } -- room for one row's
  for i = 1, #list do
    local row = list[i]
    if row.balance ~= row.before then
      if not amount.in_range(row.balance) then return nil end
      local delta, after = amount.text(amount.subtract(row.balance, row.before)), amount.text_of(row)
      journal.add(entry, kind .. ' ' .. row.id .. ' ' .. delta .. ' ' .. after)
      changes[#changes + 1] = 'b:' .. row.id
      changes[#changes + 1] = after
      deltas[#deltas + 1] = row.id
      deltas[#deltas + 1] = delta
    end
  end
  return deltas
end

--- @usual
-- Fails, before anything is written, if there is no stream. Only the reconciler makes one: a server that lost its data
-- would else begin another, with ids beyond SQL's position, and would never be seen to be behind.
function journal.append(stream, entry)
  local stream_id = redis.call('XADD', stream, 'NOMKSTREAM', '*', unpack(entry))
  if not stream_id then error({ err = 'NOJOURNAL this partition has no journal' }) end
  return stream_id
end

-- The last id that a stream ever gave; trimming does not lower it.
function journal.last_id(stream)
  if redis.call('EXISTS', stream) == 0 then return '0-0' end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end
