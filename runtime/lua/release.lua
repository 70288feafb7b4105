-- release: give entries back untried, claimable at once or after a pause; their counts are as before.
-- KEYS  1 the stream   2 {p}:starts:<group>
-- ARGV  1 group  2 consumer  3 idle to set, ms (the idle limit = at once)  then pairs: entry, '1' if its start was counted
-- Returns how many were given back; entries that another consumer holds are left alone.
local count = 0
for i = 4, #ARGV, 2 do
  local row = call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)[1]
  if row and row[2] == ARGV[2] then
    if ARGV[i + 1] == '1' then call('HINCRBY', KEYS[2], ARGV[i], -1) end
    call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', ARGV[3], 'RETRYCOUNT', math.max(row[4] - 1, 0), 'JUSTID')
    count = count + 1
  end
end
return count
