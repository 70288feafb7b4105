-- end: the last frame, the terminal fact, the terminal state, acknowledgement and freeing, in one step.
-- KEYS  1 {p}:run:<run>
-- ARGV  1 p  2 run  3 guard  4 guard value  5 frame kind  6 events  7 sealed frame  8 headers
--       9 fact kind  10 fact e  11 fact s  12 outcome  13 retention ms
-- guard 'owner': only its owner may (a router)   'state': only in that state (the sweeper)
--       'unwatched': not running and nobody watches
--       14 the place `epoch-sequence` the run must stand at; the frame is sealed for the next one
--       15 tokens that it cost, '' = as expected
-- Returns {'ok', seq} | {'lost'} the guard did not hold, nothing written | {'ended'} it had ended before.
local r = hash(KEYS[1])
if not r.state then return {'lost'} end
if r.state == 'ended' then
  if ARGV[3] == 'owner' and r.owner ~= ARGV[4] then return {'lost'} end
  leave_gate(ARGV[1], ARGV[2], r)
  drop_entry(r.lane, r.entry)
  return {'ended'}
end
if ARGV[3] == 'owner' and (r.owner ~= ARGV[4] or r.state ~= 'running') then return {'lost'} end
if ARGV[3] == 'state' and r.state ~= ARGV[4] then return {'lost'} end
if ARGV[3] == 'unwatched' and (r.state == 'running' or (r.watchers or '') ~= '') then return {'lost'} end
if r.epoch .. '-' .. r.seq ~= ARGV[14] then return {'lost'} end
local frame = {kind = ARGV[5], n = tonumber(ARGV[6]), d = ARGV[7], h = ARGV[8]}
local fact = {kind = ARGV[9], e = ARGV[10], s = ARGV[11], outcome = ARGV[12], tokens = tonumber(ARGV[15])}
return {'ok', finish(ARGV[1], ARGV[2], r, frame, fact, ARGV[13])}
