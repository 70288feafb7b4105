-- release: give entries back untried, claimable at once or after a pause; their counts are as before.
-- KEYS  1 the stream   2 {p}:starts:<group>
-- ARGV  1 group  2 consumer  3 idle to set, ms (the idle limit = at once)  then pairs: entry, starts to leave counted
-- Returns how many were given back; entries that another consumer holds are left alone.
-- The count is set, not lowered: a repeat after a lost reply changes nothing.
local count = 0
for i = 4, #ARGV, 2 do
  if holds(KEYS[1], ARGV[1], ARGV[2], ARGV[i]) then
    local starts = ARGV[i + 1]
    if starts == '0' then call('HDEL', KEYS[2], ARGV[i]) else call('HSET', KEYS[2], ARGV[i], starts) end
    call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', ARGV[3], 'RETRYCOUNT', starts, 'JUSTID')
    count = count + 1
  end
end
return count
