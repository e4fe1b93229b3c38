-- What a script may answer, first element of every reply: the same integers as Status in core/decisions.py.
-- Where several apply, the one that stands first here is answered.
local STATUS = {
  INVALID = -9, -- an argument is not what the header says; a bug of ours
  TOO_LATE = -8, -- not_after has passed: the caller may already be asking what became of this call
  ABSENT = -7, -- no such customer
  UPGRADE = -6, -- the record has a layout that this version does not know
  DUE = -5, -- something of the customer fell due: forward it, then ask again
  KEY_REUSED = -4, -- the caller's key was used before, with other parameters
  REPLAYED = -3, -- the caller's key was used before, for this very call
  MOVED_ON = -2, -- what the caller had read has changed since
  OUT_OF_RANGE = -1, -- a balance would leave the range of amounts
  REFUSED = 0, -- not enough; nothing written
  OK = 1,
}
