-- A change of what a customer is and holds, for change.lua and forward.lua: document, terms, order fields, `due`, and a
-- list of steps on rows and gates. A step is an action, a row id and an amount:
--   open      the row is new and gets the amount
--   roll_in   so much rolls over into the row, which may be new
--   roll_out  so much leaves the row, to roll over into others
--   reset     what is left expires (or is forgiven, below zero), then the row gets the amount
--   cut       what is above the amount expires; nothing happens to a row that holds no more
--   correct   the row holds the amount from now on, whatever was left
--   shift     the row holds so much more from now on, or less if it is negative
--   close     what is left expires, then the row is gone
--   drop      as close, but only if nothing is left, and no hold may still give anything back: else the answer is
--             MOVED_ON
-- A row may have several steps; each finds what the one before has left.
local change = {}

-- What each action leaves in a row that holds `balance`, with its items in the entry; nil: the row is gone.
local ACTIONS = {
  open = function(entry, row_id, _, value)
    journal.balance(entry, 'grant', row_id, value, value)
    return value
  end,
  roll_in = function(entry, row_id, balance, value)
    local left = amount.add(balance, value)
    journal.balance(entry, 'roll', row_id, value, left)
    return left
  end,
  roll_out = function(entry, row_id, balance, value)
    local left = amount.subtract(balance, value)
    journal.balance(entry, 'roll', row_id, amount.negate(value), left)
    return left
  end,
  reset = function(entry, row_id, balance, value)
    journal.expire(entry, row_id, balance, false)
    journal.balance(entry, 'grant', row_id, value, value)
    return value
  end,
  cut = function(entry, row_id, balance, value)
    if not amount.less(value, balance) then return balance end
    journal.balance(entry, 'expire', row_id, amount.subtract(value, balance), value)
    return value
  end,
  correct = function(entry, row_id, balance, value)
    journal.balance(entry, 'correct', row_id, amount.subtract(value, balance), value)
    return value
  end,
  shift = function(entry, row_id, balance, value)
    local left = amount.add(balance, value)
    journal.balance(entry, 'correct', row_id, value, left)
    return left
  end,
  close = function(entry, row_id, balance)
    journal.expire(entry, row_id, balance, true)
    return nil
  end,
}
ACTIONS.drop = ACTIONS.close
local MAY_BE_NEW = { open = true, roll_in = true }

-- Reads the change from ARGV[first] on. Nil if it is malformed.
function change.read(first)
  local orders_count, steps_count = arguments.whole(ARGV[first + 3]), arguments.whole(ARGV[first + 4])
  if not orders_count or not steps_count or not arguments.is_whole_or_empty(ARGV[first + 2]) then return nil end
  if #ARGV ~= first + 4 + 2 * orders_count + 3 * steps_count then return nil end
  local read = { document = ARGV[first], terms = ARGV[first + 1], due = ARGV[first + 2], orders = {}, steps = {} }
  local at = first + 5
  for i = 1, orders_count do
    read.orders[i] = { feature = ARGV[at], text = ARGV[at + 1] }
    at = at + 2
  end
  for i = 1, steps_count do
    local action, row_id, value = ARGV[at], ARGV[at + 1], amount.read(ARGV[at + 2])
    if not ACTIONS[action] or not string.find(row_id, '^[^%s:]+$') or not value then return nil end
    read.steps[i] = { action = action, row_id = row_id, amount = value }
    at = at + 3
  end
  return read
end

-- Adds the items of every step and of the documents to the entry, and lets `due` be the expiry of an open hold if that
-- is earlier. Returns the fields to set and to delete, or nil and the status that ends the call.
function change.decide(record_key, wanted, entry)
  local set, gone, held = {}, {}, {} -- held: what the steps so far have left in a row, false in one that is gone
  local holds = receipt.open(record_key)
  wanted.due = receipt.due(holds, wanted.due)
  for i = 1, #wanted.steps do
    local step = wanted.steps[i]
    local field = 'b:' .. step.row_id
    local before = held[field]
    if before == nil then
      before = redis.call('HGET', record_key, field)
      before = before and amount.read(before)
    end
    local is_there = before ~= false
    if held[field] == false or (is_there and step.action == 'open') then return nil, nil, STATUS.MOVED_ON end
    if not is_there and not MAY_BE_NEW[step.action] then return nil, nil, STATUS.MOVED_ON end
    local balance = before or 0
    if step.action == 'drop' and (balance ~= 0 or receipt.has_leg(holds, step.row_id)) then
      return nil, nil, STATUS.MOVED_ON
    end
    local left = ACTIONS[step.action](entry, step.row_id, balance, step.amount)
    if left == nil then
      held[field] = false
      gone[#gone + 1] = field
    else
      if not amount.in_range(left) then return nil, nil, STATUS.OUT_OF_RANGE end
      held[field] = left
      set[#set + 1] = field
      set[#set + 1] = amount.text(left)
    end
  end
  for i = 1, #wanted.orders do
    local field = 'o:' .. wanted.orders[i].feature
    if wanted.orders[i].text == '' then
      gone[#gone + 1] = field
    else
      set[#set + 1] = field
      set[#set + 1] = wanted.orders[i].text
    end
  end
  if wanted.terms ~= '' then
    journal.add(entry, 'put terms - ' .. wanted.terms)
    set[#set + 1] = 'terms'
    set[#set + 1] = wanted.terms
  end
  if wanted.document ~= '' then
    journal.add(entry, 'put customer - ' .. wanted.document)
    set[#set + 1] = 'doc'
    set[#set + 1] = wanted.document
  end
  return set, gone
end

-- Writes the fields, and the place of the customer in the due index: none while the clock is pinned.
function change.write(record_key, due_key, record, member, due, set, gone)
  set[#set + 1] = 'due'
  set[#set + 1] = due
  redis.call('HSET', record_key, unpack(set))
  if #gone > 0 then redis.call('HDEL', record_key, unpack(gone)) end
  if due == '' or record.clock then
    redis.call('ZREM', due_key, member)
  else
    redis.call('ZADD', due_key, due, member)
  end
end
