-- The usual call in a straight line, for two thirds of the price: no form of an amount to ask for, nothing to convert,
-- and no function made that only the long way needs (see balances/linking.py). Where a function here returns nil, the
-- call is not usual, and goes the long way. Both answer and write the same; tests/lua/test_usual.py compares them.
--
-- A call is usual if it needs more than nothing, for the customer and not for an entity, and one of its pools has rows,
-- without limits or alerts, none of which is unlimited, rolled over, or to give only after the others. A check must be
-- answered by what is above zero, if any row could go below; for a track one row must pay, and hold something after.
local POOL = '^[^/ ]+ [1-9]%d* [1-9]%d*$' -- feature, cost, need
local PLAIN_ROW = '^%d%d?%d?:([^:%s]+):([^:%s]+):[^:%s]+:%S+ ?' -- as ROW in lib/rows, its position below SECOND
local DIGITS_MAX = 15 -- less than SMALL

local usual = {}

--- @usual
-- Returns the names of the fields that tell what the pools in ARGV[first] to ARGV[last] may draw on.
function usual.orders(first, last)
  local orders = { nil, nil } -- room for two
  for i = first, last, 3 do
    local feature, cost, need = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if not need or #cost > DIGITS_MAX or #need > DIGITS_MAX then return nil end
    if not string.find(feature .. ' ' .. cost .. ' ' .. need, POOL) then return nil end
    orders[#orders + 1] = 'o:' .. feature
  end
  return orders[1] and orders
end

--- @usual
-- Returns the rows of the one pool that has any: the pool's number, whether no row goes below zero, and what a reply
-- tells: how many rows there are and then id and balance of each, in the order in which they give. The last balance is
-- in place `last`.
function usual.rows(key, record, orders)
  local pool, order
  for p = 1, #orders do
    local read = record.read[HEAD_FIELDS + p]
    if read and order then return nil end
    if read then pool, order = p, read end
  end
  if not order then return nil end
  local fields, told, at, stops = { nil }, { 0, nil, nil, nil, nil }, 1, true -- room for one row
  repeat
    local _, last, id, floor = string.find(order, PLAIN_ROW, at)
    if not last or floor == '*' or floor == '^' or floor == OUT_OF_REACH then return nil end
    fields[#fields + 1], at, stops = 'b:' .. id, last + 1, stops and floor == '0'
    told[#told + 1] = id
    told[#told + 1] = ''
  until at > #order
  told[1] = #fields
  local balances = redis.call('HMGET', key, unpack(fields))
  for i = 1, #fields do
    if #balances[i] > DIGITS_MAX then return nil end
    told[2 * i + 1] = balances[i]
  end
  return { pool = pool, stops = stops, told = told, last = #told }
end
