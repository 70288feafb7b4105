-- watch: add or drop a watcher of a run.
-- KEYS  1 {p}:run:<run>
-- ARGV  1 'add' | 'drop'  2 watcher (ingress#connection), or ingress# to drop all of a lost process
-- Returns {'gone'} | {state, watchers left, policy, seq, epoch}. An ended run takes no watchers; its state is told.
local r = call('HMGET', KEYS[1], 'state', 'watchers', 'policy', 'seq', 'epoch')
if not r[1] then return {'gone'} end
local kept, whole = {}, string.sub(ARGV[2], -1) == '#'
for _, word in ipairs(words(r[2])) do
  local same = word == ARGV[2] or (whole and string.sub(word, 1, #ARGV[2]) == ARGV[2])
  if not same then kept[#kept + 1] = word end
end
if ARGV[1] == 'add' then kept[#kept + 1] = ARGV[2] end
if r[1] ~= 'ended' then call('HSET', KEYS[1], 'watchers', table.concat(kept, ' ')) end
return {r[1], #kept, r[3] or 'cancel', tonumber(r[4] or 0), tonumber(r[5] or 0)}
