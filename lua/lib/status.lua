-- What a script may answer, first element of every reply: the same integers as Status in core/decisions.py.
-- Where several apply, the one that stands first here is answered.
local STATUS = {
  INVALID = -13, -- an argument is not what the header says; a bug of ours
  TOO_LATE = -12, -- not_after has passed: the caller may already be asking what became of this call
  ABSENT = -11, -- no such customer
  UPGRADE = -10, -- the record has a layout that this version does not know
  DUE = -9, -- something of the customer fell due: forward it, then ask again
  NO_ENTITY = -8, -- the customer has no entity of that id
  KEY_REUSED = -7, -- the caller's key was used before, with other parameters
  REPLAYED = -6, -- the caller's key was used before, for this very call
  MOVED_ON = -5, -- what the caller had read has changed since
  EXISTS = -4, -- the customer has an open hold of that id
  MISTIMED = -3, -- the hold would end in the past, or too far ahead
  TOO_MANY = -2, -- the customer has as many open holds as there can be
  OUT_OF_RANGE = -1, -- a balance would leave the range of amounts
  REFUSED = 0, -- not enough; nothing written
  OK = 1,
}
