-- archived: the archive has the answer of an ended run, so frames and state need not stay longer than those of others.
-- KEYS  1 {p}:run:<run>   2 {p}:reply:<run>   3 {p}:kept:<run>
-- ARGV  1 retention ms
-- Returns 1 | 0 it has not ended or is gone | 2 its client has deleted it: nobody is to keep it.
local r = call('HMGET', KEYS[1], 'state', 'deleted')
if r[1] ~= 'ended' then return 0 end
unkeep(string.match(KEYS[1], '^{.-}'), string.match(KEYS[1], '[^:]+$'))
call('PEXPIRE', KEYS[1], ARGV[1])
call('PEXPIRE', KEYS[2], ARGV[1])
return r[2] and 2 or 1
