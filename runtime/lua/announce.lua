-- announce: a router says how many runs of each pool it can take; the gate lets in what fits.
-- KEYS  1 {p}:routers
-- ARGV  1 p  2 router  3 ms that this holds (0 = it leaves)  4 most runs to let in  then pairs: pool, slots
-- Returns {place among the routers that live, counted from 0 (-1 = it left), how many they are, runs let in}.
-- An announcement ends by itself: the slots of a router that died are gone after a few seconds, and what it holds still
-- counts until it was taken over.
local p, me, holds_ms, left = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local t, admitted = now(), 0
call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ms(t))
call('ZREMRANGEBYSCORE', KEYS[1], '(' .. ms(t + FAR_MS), '+inf')
if holds_ms > 0 then call('ZADD', KEYS[1], ms(t + holds_ms), me) else call('ZREM', KEYS[1], me) end
for i = 5, #ARGV, 2 do
  local g = gate_of(p, ARGV[i])
  if holds_ms > 0 then
    call('HSET', g .. '|slots', me, ARGV[i + 1] .. ' ' .. ms(t + holds_ms))
    call('PEXPIRE', g .. '|slots', holds_ms * 2)
  else
    call('HDEL', g .. '|slots', me)
  end
  add_up(g, t)
  call('PEXPIRE', g, 2 * PASSED_MS)
  admitted = admitted + pump(p, ARGV[i], left - admitted)
end
local place, routers = -1, call('ZRANGE', KEYS[1], 0, -1)
table.sort(routers)
for i, name in ipairs(routers) do
  if name == me then place = i - 1 end
end
return {place, #routers, admitted}
