-- accept: a request becomes a run.
-- KEYS  1 {p}:run:<run>   2 {p}:body:<run>   3 {p}:live   4 {p}:bytes   5 {p}:requests
-- ARGV  1 run  2 e  3 s  4 sealed body  5 deadline ms from now  6 checks due ms from now  7 most runs  8 most bytes
--       9 families  10 watcher  11 policy  12 key id  13 stream flag
-- Returns {1, live} accepted (or accepted before) | {0, live, bytes} over the bound.
-- The hash is written last: without it the run does not exist, and a repeat does everything again.
if call('EXISTS', KEYS[1]) == 1 then return {1, call('ZCARD', KEYS[3])} end
local live, bytes = call('ZCARD', KEYS[3]), tonumber(call('GET', KEYS[4]) or 0)
if live == 0 and bytes ~= 0 then call('SET', KEYS[4], 0); bytes = 0 end
local size = #ARGV[4]
if live >= tonumber(ARGV[7]) or bytes + size > tonumber(ARGV[8]) then return {0, live, bytes} end
local t = now()
call('ZADD', KEYS[3], t + tonumber(ARGV[6]), ARGV[1])
if call('EXISTS', KEYS[2]) == 0 then call('MSET', KEYS[2], ARGV[4], KEYS[4], bytes + size) end
call('XADD', KEYS[5], '*', 'e', ARGV[2], 's', ARGV[3])
call('HSET', KEYS[1], 'state', 'checking', 'families', ARGV[9], 'watchers', ARGV[10], 'policy', ARGV[11],
  'key', ARGV[12], 'stream', ARGV[13], 'a', ARGV[2], 'as', ARGV[3], 'bytes', size,
  'deadline', ms(t + tonumber(ARGV[5])), 'seq', 0, 'epoch', 0, 't:accepted', ms(t))
return {1, live + 1}
