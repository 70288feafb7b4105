-- tenure: for how long the server that runs this is known to be in charge. What lies here was written by the server that
-- was in charge before a restart or a failover, or by nobody: then the time begins now.
-- KEYS  1 {p}:server
-- Returns milliseconds.
local id = string.match(call('INFO', 'server'), 'run_id:(%w+)')
local known, t = call('HMGET', KEYS[1], 'id', 'since'), now()
if known[1] == id and tonumber(known[2]) <= t then return t - tonumber(known[2]) end
call('HSET', KEYS[1], 'id', id, 'since', ms(t))
return 0
