-- take: claim one idle entry from its silent holder, and count the start before it happens.
-- KEYS  1 the stream   2 {p}:starts:<group>
-- ARGV  1 group  2 consumer  3 idle limit ms  4 entry
-- Returns {} when it is not idle any more | {'missing'} when the entry was deleted under its holder (dropped from
--       the pending list) | {starts, field, value, ...} with starts counting this one.
-- Starts are counted, not deliveries: an entry that was only read ahead by a process that died is not blamed for it.
local row = call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], ARGV[4], ARGV[4], 1)[1]
if not row then return {} end
local entry = call('XRANGE', KEYS[1], ARGV[4], ARGV[4])[1]
if not entry then
  call('HDEL', KEYS[2], ARGV[4])
  call('XACK', KEYS[1], ARGV[1], ARGV[4])
  return {'missing'}
end
call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[4], 'JUSTID')
local starts = call('HINCRBY', KEYS[2], ARGV[4], 1)
local out = {starts}
for _, part in ipairs(entry[2]) do out[#out + 1] = part end
return out
