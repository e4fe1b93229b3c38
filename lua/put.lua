-- Puts one document that belongs to no customer: the catalog, an API key, the settings. Compare-and-set on the version
-- of its type, so that two writers cannot lose each other's change.
--
-- KEYS
--   documents   cg:{sys}:d:<type>
--   journal     cg:{sys}:j
--   buckets...  cg:{sys}:k:<bucket>, four of them, only when the caller sent a key (see lib/keys)
-- ARGV
--   not_after         ms of Redis TIME, past which nothing is written
--   call              the call as JSON, appended unread
--   key               digest of the caller's key, or ''
--   fingerprint       digest of the parameters, or ''
--   document_type     one word
--   document_id       without blanks, '-' where the type has one document only; never `version`
--   expected_version  the version of the type that was read
--   document          as JSON
-- Returns
--   {OK | REPLAYED, Redis TIME in ms, version, stream id}
--   {INVALID | TOO_LATE | KEY_REUSED | MOVED_ON, Redis TIME in ms}
-- Writes
--   documents: the document under its id, and `version`; journal: one entry; the first bucket: the key. Nothing unless
--   OK.

--- @include "lib/status"
--- @include "lib/arguments"
--- @include "lib/amount"
--- @include "lib/record"
--- @include "lib/journal"
--- @include "lib/keys"

local DOCUMENTS, JOURNAL, BUCKETS = KEYS[1], KEYS[2], 3
local not_after, call, key, fingerprint = arguments.whole(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local document_type, document_id, expected_version, document = ARGV[5], ARGV[6], arguments.whole(ARGV[7]), ARGV[8]

-- Read.
local time = records.time_ms()
local is_named = arguments.is_word(document_type) and arguments.is_word(document_id) and document_id ~= 'version'
local is_valid = not_after and expected_version and document ~= '' and keys.are_valid(key, fingerprint)
if not is_named or not is_valid then
  return { STATUS.INVALID, time }
end
if time > not_after then return { STATUS.TOO_LATE, time } end
local version = tonumber(redis.call('HGET', DOCUMENTS, 'version') or 0)
local replayed, first_id = keys.find(BUCKETS, key, fingerprint, '-', time)
if replayed == STATUS.KEY_REUSED then return { replayed, time } end
if replayed then return { replayed, time, version, first_id } end
if version ~= expected_version then return { STATUS.MOVED_ON, time } end

-- Decide.
local entry = { 'n', version + 1, 'k0', call }
entry.items = 0
journal.add(entry, table.concat({ 'put', document_type, document_id, document }, ' '))

-- Write.
local stream_id = journal.append(JOURNAL, entry) -- first: it alone could still meet a key of another type
redis.call('HSET', DOCUMENTS, document_id, document, 'version', version + 1)
keys.keep(BUCKETS, key, fingerprint, '-', stream_id)
return { STATUS.OK, time, version + 1, stream_id }
