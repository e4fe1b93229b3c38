-- The one place where an entry is written. core/journal.py says what its fields mean and reads them back.
local journal = {}

-- Opens the entry of one call; `seq` is the customer's number after it.
function journal.open(record, customer_id, seq, call)
  local entry = { 'c', customer_id, 'u', record.uid, 'n', seq, 'k0', call }
  if record.clock then
    entry[#entry + 1] = 't'
    entry[#entry + 1] = record.clock
  end
  entry.items = 0
  return entry
end

function journal.add(entry, text)
  entry[#entry + 1] = entry.items
  entry[#entry + 1] = text
  entry.items = entry.items + 1
end

function journal.balance(entry, kind, row_id, delta, after)
  journal.add(entry, table.concat({ kind, row_id, amount.text(delta), amount.text(after) }, ' '))
end

function journal.append(stream, entry) return redis.call('XADD', stream, '*', unpack(entry)) end
