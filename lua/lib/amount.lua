-- Exact amounts in nanos, of up to 10^24. Below 2^52 an amount is a plain Lua number; from there on it is a pair
-- {hi, lo} worth hi * 10^15 + lo, 0 <= lo < 10^15, hi signed. Every function takes and gives both forms, and an amount
-- has exactly one form, so that the usual one costs no more than a double: as long as a call has met no pair, nothing
-- asks for the form. core/amounts.py is the same in Python.
local BASE = 1e15
local SMALL = 4503599627370496 -- 2^52: the sum of two such numbers is still exact
local HI_MAX = 1e9 -- AMOUNT_MAX of core/amounts.py
local ONE = 1e9 -- one unit, in nanos
local DIGITS = '%.0f' -- never tostring or '..': both keep 14 digits only

local has_pairs = false -- whether this call has met a pair

local amount = {}

local function is_plain(a) return not has_pairs or type(a) == 'number' end

local function new_pair(hi, lo)
  has_pairs = true
  return { hi, lo }
end

local function pair(a)
  if type(a) == 'table' then return a end
  local hi = math.floor(a / BASE)
  return new_pair(hi, a - hi * BASE)
end

-- The one form of hi * 10^15 + lo.
local function whole(hi, lo)
  if hi >= -5 and hi <= 4 then
    local small = hi * BASE + lo
    if small > 0 - SMALL and small < SMALL then return small end
  end
  return new_pair(hi, lo)
end

-- Nil unless text is an integer of at most 24 digits.
function amount.read(text)
  if #text <= 15 and string.find(text, '^%-?%d+$') then return text + 0 end -- 0, not -0
  local sign, digits = string.match(text, '^(-?)(%d+)$')
  if not digits or #digits > 24 then return nil end
  local value
  if #digits <= 15 then
    value = tonumber(digits)
  else
    value = whole(tonumber(string.sub(digits, 1, -16)), tonumber(string.sub(digits, -15)))
  end
  if sign == '-' then return amount.negate(value) end
  return value
end

function amount.text(a)
  if is_plain(a) then return string.format(DIGITS, a) end
  if a[1] < 0 then
    local positive = amount.negate(a)
    return string.format('-%.0f%015.0f', positive[1], positive[2])
  end
  return string.format('%.0f%015.0f', a[1], a[2])
end

-- The balance of a row as text: written once, however often it is told.
function amount.text_of(row)
  if row.written ~= row.balance then
    row.written, row.text = row.balance, amount.text(row.balance)
  end
  return row.text
end

function amount.negate(a)
  if is_plain(a) then return 0 - a end
  if a[2] == 0 then return whole(0 - a[1], 0) end
  return whole(0 - a[1] - 1, BASE - a[2])
end

-- The amount without its sign.
function amount.size(a) return amount.less(a, 0) and amount.negate(a) or a end

function amount.add(a, b)
  if not has_pairs or (is_plain(a) and is_plain(b)) then
    local sum = a + b
    if sum > 0 - SMALL and sum < SMALL then return sum end
    return pair(sum)
  end
  a, b = pair(a), pair(b)
  local hi, lo = a[1] + b[1], a[2] + b[2]
  if lo >= BASE then hi, lo = hi + 1, lo - BASE end
  return whole(hi, lo)
end

function amount.subtract(a, b) return amount.add(a, has_pairs and amount.negate(b) or 0 - b) end

function amount.less(a, b)
  if not has_pairs or (is_plain(a) and is_plain(b)) then return a < b end
  a, b = pair(a), pair(b)
  if a[1] ~= b[1] then return a[1] < b[1] end
  return a[2] < b[2]
end

function amount.least(a, b)
  if amount.less(b, a) then return b end
  return a
end

-- Whether |a| < 10^24: what `read` takes back.
function amount.in_range(a)
  if is_plain(a) then return true end
  return a[1] < HI_MAX and (a[1] > 0 - HI_MAX or (a[1] == 0 - HI_MAX and a[2] > 0))
end

-- Little-endian digits of a non-negative amount in base 10^7, whose products add up exactly in a double.
local function limbs(a)
  local digits = amount.text(a)
  local out = {}
  for last = #digits, 1, -7 do out[#out + 1] = tonumber(string.sub(digits, math.max(1, last - 6), last)) end
  return out
end

-- Drops the last nine decimal digits of the number in limbs, rounding up.
local function drop_nanos(product)
  local text = {}
  for i = #product, 1, -1 do text[#text + 1] = string.format('%07.0f', product[i]) end
  local digits = '00' .. table.concat(text)
  local kept, dropped = string.sub(digits, 1, -10), string.sub(digits, -9)
  local result = amount.read(string.match(kept, '^0*(%d+)$'))
  if result and string.find(dropped, '[1-9]') then return amount.add(result, 1) end
  return result
end

-- units * cost / 10^9 for non-negative amounts, rounded up at 10^-9. Nil if that has more digits than `read` takes.
function amount.multiply(units, cost)
  if type(units) == 'number' and type(cost) == 'number' and units % ONE == 0 then
    local product = units / ONE * cost
    if product < SMALL then return product end
  end
  local a, b, product = limbs(units), limbs(cost), {}
  for i = 1, #a + #b do product[i] = 0 end
  for i = 1, #a do
    local carry = 0
    for j = 1, #b do
      local sum = product[i + j - 1] + a[i] * b[j] + carry
      carry = math.floor(sum / 1e7)
      product[i + j - 1] = sum - carry * 1e7
    end
    product[i + #b] = product[i + #b] + carry
  end
  return drop_nanos(product)
end

-- The units that credits pay for: credits * 10^9 / cost, rounded up, for credits >= 0 and cost > 0. Long division,
-- one decimal digit at a time: it runs only when a call crosses from one credit system into another.
function amount.units_for(credits, cost)
  if credits == 0 then return 0 end
  local digits = amount.text(credits) .. '000000000'
  local quotient, rest = {}, 0
  for i = 1, #digits do
    local tenfold = amount.add(rest, rest)
    tenfold = amount.add(tenfold, tenfold)
    tenfold = amount.add(tenfold, rest)
    rest = amount.add(amount.add(tenfold, tenfold), tonumber(string.sub(digits, i, i)))
    local digit = 0
    while not amount.less(rest, cost) do
      rest = amount.subtract(rest, cost)
      digit = digit + 1
    end
    quotient[i] = digit
  end
  local units = amount.read(string.match(table.concat(quotient), '^0*(%d+)$'))
  if rest ~= 0 then return amount.add(units, 1) end
  return units
end
