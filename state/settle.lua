#!lua flags=allow-oom
-- settle: a run has ended; free what it holds and remember that it did. Once or often, before or after the reserve.
--
-- KEYS  1    {o:<org>}:settled       zset, run -> when the mark goes (ms of the server's clock); gone with the last mark
--       2..  {o:<org>}:held:<scope>  zset, run -> when the hold frees itself
-- ARGV  1 run   2 lifetime of the mark in ms: a reserve that comes later than the end holds nothing within it
-- The requests counted per minute stay: they were made. Frees memory, hence allowed when it is full.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now))
redis.call('ZADD', KEYS[1], string.format('%.0f', now + ARGV[2]), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for i = 2, #KEYS do redis.call('ZREM', KEYS[i], ARGV[1]) end
return 1
