-- archived: the archive has the answer of an ended run, so frames and state need not stay longer than those of others.
-- KEYS  1 {p}:run:<run>   2 {p}:reply:<run>
-- ARGV  1 retention ms
-- Returns 1 | 0 it has not ended or is gone.
if call('HGET', KEYS[1], 'state') ~= 'ended' then return 0 end
call('PEXPIRE', KEYS[1], ARGV[1])
call('PEXPIRE', KEYS[2], ARGV[1])
return 1
