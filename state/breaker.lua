#!lua
-- breaker: what happened to one endpoint, or what stands of all. policy/breaker.py says what each step means.
--
-- KEYS  1  breakers   hash, endpoint -> "failures opens until probe changed"; times are ms of this server's clock.
--                     Only endpoints that failed stand there; the whole goes when none has failed for its life.
-- ARGV  1  step: failed | succeeded | released | probed | look
--       2  endpoint, 3 opens under which the call began (failed, succeeded, released)
--       4  failures, 5 open_ms, 6 open_most_ms, 7 probe_ms, 8 forgiven_ms, 9 life of the key in ms
-- Returns {now, granted, endpoint, value, ...}: granted 1 or 0 (probed); then the endpoint, or for look all of them.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local step, name, began = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most, open_ms, open_most, probe_ms = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local forgiven, life = tonumber(ARGV[8]), ARGV[9]

local function read(text)
  local f, o, u, p, c = string.match(text or '', '^(%d+) (%d+) (%d+) (%d+) (%d+)$')
  local b = {failures = tonumber(f or 0), opens = tonumber(o or 0), till = tonumber(u or 0), probe = tonumber(p or 0),
             changed = tonumber(c or 0)}
  if b.till == 0 and b.opens > 0 and now - b.changed > forgiven then
    return {failures = 0, opens = 0, till = 0, probe = 0, changed = 0}
  end
  return b
end

local function text(b)
  return string.format('%.0f %.0f %.0f %.0f %.0f', b.failures, b.opens, b.till, b.probe, b.changed)
end

if step == 'look' then
  local answer, flat = {string.format('%.0f', now), 0}, redis.call('HGETALL', KEYS[1])
  for i = 1, #flat, 2 do
    answer[#answer + 1], answer[#answer + 2] = flat[i], text(read(flat[i + 1]))
  end
  return answer
end

local before = redis.call('HGET', KEYS[1], name)
local b, granted = read(before), 1
if step == 'failed' then
  if began == b.opens and now >= b.till then
    b.failures = b.failures + 1
    if b.till > 0 or b.failures >= most then
      b.till = now + math.min(open_ms * (b.opens + 1), open_most)
      b.opens, b.probe, b.changed = b.opens + 1, 0, now
    end
  end
elseif step == 'succeeded' then
  if began == b.opens then
    b.failures = 0
    if b.till > 0 then b.till, b.probe, b.changed = 0, 0, now end
  end
elseif step == 'released' then
  if began == b.opens then b.probe = 0 end
elseif b.till > 0 then
  if now >= b.till and now >= b.probe then b.probe = now + probe_ms else granted = 0 end
end

local after = text(b)
if b.failures == 0 and b.opens == 0 then
  if before then redis.call('HDEL', KEYS[1], name) end
elseif after ~= before then
  redis.call('HSET', KEYS[1], name, after)
  redis.call('PEXPIRE', KEYS[1], life)
end
return {string.format('%.0f', now), granted, name, after}
