-- watch: add or drop a watcher of a run.
-- KEYS  1 {p}:run:<run>
-- ARGV  1 'add' | 'drop'  2 watcher (ingress#connection), or ingress# to drop all of a lost process  3 p  4 run
-- Returns {'gone'} | {state, watchers left, policy, seq, epoch}. An ended run takes no watchers; its state is told.
-- policy 'undecided': authorization has not said yet what the caller's policy is; its verdict will decide.
-- The last one that goes starts the policy (see depart); one that comes stops a grace that runs.
local r = call('HMGET', KEYS[1], 'state', 'watchers', 'policy', 'seq', 'epoch', 'o:authorization')
if not r[1] then return {'gone'} end
local kept, whole = {}, string.sub(ARGV[2], -1) == '#'
for _, word in ipairs(words(r[2])) do
  local same = word == ARGV[2] or (whole and string.sub(word, 1, #ARGV[2]) == ARGV[2])
  if not same then kept[#kept + 1] = word end
end
if ARGV[1] == 'add' then kept[#kept + 1] = ARGV[2] end
local policy = (r[1] == 'checking' and not r[6]) and 'undecided' or r[3] or 'cancel'
if r[1] ~= 'ended' then
  if #kept > 0 then
    if (r[2] or '') == '' then call('ZREM', ARGV[3] .. ':left', ARGV[4]) end
  elseif (r[2] or '') ~= '' then
    if policy ~= 'undecided' then depart(ARGV[3], ARGV[4], policy) end
    call('HSET', KEYS[1], 'leaver', whole and 'lost' or 'client')
  end
  call('HSET', KEYS[1], 'watchers', table.concat(kept, ' '))
end
return {r[1], #kept, policy, tonumber(r[4] or 0), tonumber(r[5] or 0)}
