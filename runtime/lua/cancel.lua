-- cancel: ask the owner of a running run to stop. (A run that is not running is ended by end.lua instead.)
-- KEYS  1 {p}:run:<run>
-- ARGV  1 p  2 run  3 by  4 '1' = only if nobody watches
-- Returns 'flagged' | the state it is in (checking, queued, ended) | 'gone' | 'watched'.
local r = call('HMGET', KEYS[1], 'state', 'owner', 'watchers')
if not r[1] then return 'gone' end
if ARGV[4] == '1' and (r[3] or '') ~= '' then return 'watched' end
if r[1] ~= 'running' then return r[1] end
call('HSET', KEYS[1], 'cancel', ARGV[3])
call('SPUBLISH', ARGV[1] .. ':push:' .. string.match(r[2], '^[^:]+'), 'cancel ' .. ARGV[2])
return 'flagged'
