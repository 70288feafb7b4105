-- dead: move an entry to the dead letters with its reason; end its run in the same step when the entry was genuine.
-- KEYS  1 the stream   2 {p}:starts:<group>   3 {p}:dlq
-- ARGV  1 p  2 group  3 consumer  4 entry  5 starts  6 sealed entry  7 reason  8 run ('' = touch no run)
--       9 sealed frame  10 fact kind  11 fact e  12 fact s  13 retention ms  14 the place `epoch-sequence` it must stand at
-- Returns 'dead' | 'lost' (another consumer holds the entry; nothing written).
if not holds(KEYS[1], ARGV[2], ARGV[3], ARGV[4]) then return 'lost' end
local r = {}
if ARGV[8] ~= '' then r = hash(ARGV[1] .. ':run:' .. ARGV[8]) end
call('XADD', KEYS[3], '*', 'stream', KEYS[1], 'group', ARGV[2], 'entry', ARGV[4], 'starts', ARGV[5],
  'reason', ARGV[7], 'run', ARGV[8], 'd', ARGV[6])
if r.entry == ARGV[4] then r.entry = nil end -- acknowledged below, last
if r.state and r.state ~= 'ended' and r.epoch .. '-' .. r.seq == ARGV[14] then
  finish(ARGV[1], ARGV[8], r, {kind = 'error', n = 1, d = ARGV[9], h = ''},
    {kind = ARGV[10], e = ARGV[11], s = ARGV[12], outcome = 'failed'}, ARGV[13])
end
if string.find(KEYS[1], ':cleared:', 1, true) then
  drop_entry(KEYS[1], ARGV[4])
else
  call('HDEL', KEYS[2], ARGV[4])
  call('XACK', KEYS[1], ARGV[2], ARGV[4])
end
return 'dead'
