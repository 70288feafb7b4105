-- forget: a client deletes the answer of an ended run. What stays says so, to whoever would keep or show it.
-- KEYS  1 {p}:run:<run>   2 {p}:reply:<run>   3 {p}:kept:<run>
-- Returns 1 | 0 it has not ended, or is gone.
if call('HGET', KEYS[1], 'state') ~= 'ended' then return 0 end
call('HSET', KEYS[1], 'deleted', 1)
call('DEL', KEYS[2])
unkeep(string.match(KEYS[1], '^{.-}'), string.match(KEYS[1], '[^:]+$'))
return 1
