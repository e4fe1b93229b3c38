-- A customer's record: the hash that answers every call, and the time that counts for that customer.
--   v        layout version             uid    made when the customer was created
--   seq      number of the last entry   shape  how often rows, document or clock were changed
--   due      ms at which something changes by itself, or ''
--   clock    ms of the pinned test clock, or ''
--   terms    the rows' immutable data, returned unread
--   doc      the customer's document, returned unread
--   holds    how many holds are open; absent before the first
--   o:<pool>  a pool is what a call may draw on of one feature, and its name says for whom:
--                  <feature>            a call for the customer: rows that are nobody's in particular, and then the
--                                       slots that entities have of plans of the customer
--                  <feature>/<entity>   a call for this entity: its own rows and limits, then the customer's rows
--                  <feature>/           a call for an entity that has none of its own, where others have: the
--                                       customer's rows; where no entity has any, this field is not there
--             Words with blanks between. First its alerts and limits; those of <feature> hold for its entities, too:
--                  '!<alert>:<total>:<nanos>'  told when a total falls to this: 'r' what remains, 's' the sum of its
--                                      rows, those below zero with it
--                  '$<nanos>'          a spend limit: how far below zero its rows may go together
--                  '@<gate>:<filter>:<period>'  a usage limit: a row of its own that holds what may still be used in
--                                      this period, named by the instant since which it counts; the filter is '-', or
--                                      digests of properties that a call must have, with '.' between
--                then its rows in burn order, '<position>:<row id>:<floor>:<ceiling>:<period>'. The position is that
--                among all rows of the customer, 10000 higher for those that give only after the others: slots in a
--                call for the customer, the customer's rows in a call for an entity. A refund fills up to the ceiling;
--                the period is '-' in a row that never resets. Floors:
--                  '0'     it stops at zero          '~'         it goes below without bound
--                  'seat'  it goes below, but not for a call that insists on having it all
--                  '*'     it is unlimited           '-<nanos>'  it goes below as far as this
--                  '^'     it rolled over: it gives first, stops at zero, and is never refilled
--                  'x'     it is out of reach: it only counts for the customer's alerts and spend limit
--   o:/<entity>  says that there is such an entity; its id as in a key
--   b:<row id>   the raw balance of a row or gate, in nanos
--   h:<hold id>  the receipt of an open hold (see lib/receipt)
local LAYOUT = '1'
local HEAD_FIELDS = 6

local records = {}

--- @usual
function records.time_ms()
  local time = redis.call('TIME')
  local us = time[1] * 1000000 + time[2]
  return (us - us % 1000) / 1000
end

--- @usual
local function number(text) return text and text ~= '' and text + 0 or nil end

--- @usual
-- Reads the head of the record and `more` fields after it; `read` keeps the reply. If the call is for an entity,
-- `more.entity` is the number of the field that is there if the entity is. The second result is the status that ends
-- the call, if any.
function records.read(key, not_after, more)
  local read = redis.call('HMGET', key, 'v', 'uid', 'seq', 'due', 'clock', 'terms', unpack(more))
  local time, due, clock = records.time_ms(), number(read[4]), number(read[5])
  local record = {
    time = time, now = clock or time, due = due, clock = clock,
    seq = number(read[3]) or 0, uid = read[2], terms = read[6], read = read,
  }
  if not_after and record.time > not_after then return record, STATUS.TOO_LATE end
  if not read[1] then return record, STATUS.ABSENT end
  if read[1] ~= LAYOUT then return record, STATUS.UPGRADE end
  if record.due and record.now >= record.due then return record, STATUS.DUE end
  if more.entity and not read[HEAD_FIELDS + more.entity] then return record, STATUS.NO_ENTITY end
  return record, nil
end
