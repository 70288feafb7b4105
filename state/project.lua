#!lua
-- project: write a key's projection, but only over what the writer has seen.
-- Without this, a reader that loaded the record just before a revocation could write the old one over the new one.
--
-- KEYS  1 key:<id>   string, JSON of schemas.records.KeyRecord; lives ARGV[3] ms, its age is that minus PTTL
-- ARGV  1 what the writer saw there ('' = nothing)   2 the new JSON   3 lifetime in ms
-- Returns 1 when written, 0 when somebody else was faster (read again).
local present = redis.call('GET', KEYS[1]) or ''
if present ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
