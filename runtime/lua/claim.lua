-- claim: a router makes the run its own.
-- KEYS  1 {p}:run:<run>   2 {p}:body:<run>   3 the cleared stream
-- ARGV  1 run  2 consumer  3 owner (consumer:nonce)  4 entry
-- Returns {'gone'} nothing to do, acknowledged | {'lost'} another consumer has the entry
--       | {'ok', epoch, seq, ms left, body or '', fields of the hash...}. The same owner asking again gets the same answer.
local r = hash(KEYS[1])
if (r.state ~= 'queued' and r.state ~= 'running') or r.entry ~= ARGV[4] then
  drop_entry(KEYS[3], ARGV[4])
  return {'gone'}
end
if not holds(KEYS[3], 'router', ARGV[2], ARGV[4]) then return {'lost'} end
local t, epoch = now(), r.epoch
if r.owner ~= ARGV[3] then
  epoch = epoch + 1
  call('HSET', KEYS[1], unpack(owned({}, r, ARGV[3], t)))
end
return claim_of(string.match(KEYS[1], '^[^:]+'), ARGV[1], r, epoch, t)
