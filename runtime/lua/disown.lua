-- disown: what a consumer that is known to be dead holds counts as left for a whole idle limit; anybody may take it over.
-- KEYS  1 the stream
-- ARGV  1 group  2 consumer  3 idle to set, ms
-- Returns how many entries. Only its own: what another took over meanwhile stays there. Counts are as before.
local rows = call('XPENDING', KEYS[1], ARGV[1], '-', '+', 10000, ARGV[2])
for _, row in ipairs(rows) do
  call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, row[1], 'IDLE', ARGV[3], 'RETRYCOUNT', row[4], 'JUSTID')
end
return #rows
