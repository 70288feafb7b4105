#!lua
-- latency: take in what one process has measured since it last came, and say what all have. base/ewma.py has the rules.
--
-- KEYS  1  latencies   hash, endpoint -> "ttft peak at": seconds, seconds, ms of this server's clock
-- ARGV  1  decay in ms, 2 life in ms of what is not measured any more
--       3, 4, 5 ... per endpoint: name, mean of the samples in s, largest sample in s
-- Returns {endpoint, ttft, peak, age in ms, ...}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local decay, life = tonumber(ARGV[1]), tonumber(ARGV[2])

local function read(raw)
  local ttft, peak, at = string.match(raw or '', '^(%S+) (%S+) (%d+)$')
  return tonumber(ttft or 0), tonumber(peak or 0), tonumber(at or now)
end

local function average(old, sample, elapsed)
  if old <= 0 then return sample end
  local kept = math.exp(-elapsed / decay)
  return old * kept + sample * (1 - kept)
end

for i = 3, #ARGV, 3 do
  local ttft, peak, at = read(redis.call('HGET', KEYS[1], ARGV[i]))
  local mean, largest, elapsed = tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2]), math.max(now - at, 0)
  ttft = average(ttft, mean, elapsed)
  if largest >= peak then peak = largest else peak = average(peak, mean, elapsed) end
  redis.call('HSET', KEYS[1], ARGV[i], string.format('%.6f %.6f %.0f', ttft, peak, now))
end
if #ARGV > 2 then redis.call('PEXPIRE', KEYS[1], life) end

local seen, flat = {}, redis.call('HGETALL', KEYS[1])
for i = 1, #flat, 2 do
  local ttft, peak, at = read(flat[i + 1])
  if now - at <= life then
    seen[#seen + 1], seen[#seen + 2] = flat[i], string.format('%.6f', ttft)
    seen[#seen + 1], seen[#seen + 2] = string.format('%.6f', peak), string.format('%.0f', math.max(now - at, 0))
  else
    redis.call('HDEL', KEYS[1], flat[i])
  end
end
return seen
