-- beat: keep entries that this consumer is still working on, and tell what became of their runs.
-- KEYS  1 the stream
-- ARGV  1 group  2 consumer  3 p  then triples: entry, run or '', owner or ''
-- Returns one of these per triple: 'ok' | 'lost' (another consumer has it: stop, write nothing) | 'cancel'.
-- An entry that was taken over is never taken back: the holder is compared before XCLAIM.
local out = {}
for i = 4, #ARGV, 3 do
  local entry, run, owner = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local state = 'ok'
  if not holds(KEYS[1], ARGV[1], ARGV[2], entry) then
    state = 'lost'
  elseif owner ~= '' then
    local r = call('HMGET', ARGV[3] .. ':run:' .. run, 'owner', 'state', 'cancel')
    if r[1] ~= owner or r[2] ~= 'running' then state = 'lost'
    elseif r[3] then state = 'cancel' end
  end
  if state ~= 'lost' then call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, entry, 'JUSTID') end
  out[#out + 1] = state
end
return out
