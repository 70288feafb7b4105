#!lua
-- reserve: one request in every limited scope of each run, for several runs of one organization at once.
--
-- KEYS  1        {o:<org>}:settled       zset, run -> when the mark goes (ms of the server's clock); written by settle
--       2i, 2i+1 for scope i = 1, 2 ...:
--       2i       {o:<org>}:rpm:<scope>   zset, run -> when it was counted; a sliding window of one minute, then gone
--       2i+1     {o:<org>}:held:<scope>  zset, run -> when the hold frees itself; the runs in flight, gone with the last
-- ARGV  per run: run, ttl in ms, number of scopes, then per scope: i, requests per minute, concurrency (0 = no limit)
-- Returns per run {granted, i, limit, figure, remaining, reset ms, retry ms}: 1 or 0; the scope and the limit that said
-- no ('' when granted); figures of the tightest requests per minute (-1 = none).
--
-- A run is counted and held once, however often it is asked for; a settled run holds nothing more. A run that is
-- refused in one scope holds nothing in any. Everything is checked before the first write, and the counting mark is
-- written before the hold, so what failed half-way completes when it is asked again.
local WINDOW, BUSY_RETRY = 60000, 1000
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function text(x) return string.format('%.0f', x) end
local function after(x) return '(' .. text(x) end
local function rpm(i) return KEYS[2 * i] end
local function held(i) return KEYS[2 * i + 1] end

local function alive(key, run, since)
  local score = redis.call('ZSCORE', key, run)
  return score and tonumber(score) > since
end

-- What stands in scope i: stored and counted requests of the window, runs in flight.
local scopes = {}
local function scope(i)
  if not scopes[i] then
    local stored = redis.call('ZCOUNT', rpm(i), after(now - WINDOW), '+inf')
    scopes[i] = {stored = stored, counted = stored, busy = redis.call('ZCOUNT', held(i), after(now), '+inf'),
                 marks = {}, holds = {}, drops = {}}
  end
  return scopes[i]
end

-- When the window's n-th request (from 0) leaves it, in ms from now. Those of this call leave last.
local function leaves(i, n)
  if n >= scope(i).stored then return WINDOW end
  local found = redis.call('ZRANGEBYSCORE', rpm(i), after(now - WINDOW), '+inf', 'WITHSCORES', 'LIMIT', n, 1)
  return math.max(1, tonumber(found[2]) + WINDOW - now)
end

-- The first limit of this run that says no, or nil.
local function refusal(run, wanted)
  for _, w in ipairs(wanted) do
    w.held = alive(held(w.i), run, now)
    w.counted = w.held or alive(rpm(w.i), run, now - WINDOW)
  end
  for _, w in ipairs(wanted) do
    local s = scope(w.i)
    if not w.counted and w.most > 0 and s.counted >= w.most then
      return {0, w.i, 'requests_per_minute', w.most, 0, leaves(w.i, 0), leaves(w.i, s.counted - w.most)}
    end
    if not w.held and w.parallel > 0 and s.busy >= w.parallel then
      return {0, w.i, 'concurrency', -1, -1, 0, BUSY_RETRY}
    end
  end
end

-- Plan the writes of a granted run, and its answer.
local function grant(run, expiry, wanted)
  local answer = {1, 0, '', -1, -1, 0, 0}
  for _, w in ipairs(wanted) do
    local s = scope(w.i)
    if not w.counted and w.most > 0 then
      s.counted = s.counted + 1
      s.marks[#s.marks + 1], s.marks[#s.marks + 2] = text(now), run
    end
    if not w.held then
      s.busy = s.busy + 1
      s.holds[#s.holds + 1], s.holds[#s.holds + 2] = text(expiry), run
    end
    local left = math.max(0, w.most - s.counted)
    if w.most > 0 and (answer[5] < 0 or left < answer[5]) then
      answer[4], answer[5], answer[6] = w.most, left, leaves(w.i, 0)
    end
  end
  return answer
end

-- A refused run lets go of what an earlier, half-done try has left.
local function drop(run, wanted)
  for _, w in ipairs(wanted) do
    if w.counted then
      local drops = scope(w.i).drops
      drops[#drops + 1] = run
    end
  end
end

local answers, known, at = {}, {}, 1
while at <= #ARGV do
  local run, ttl, wanted = ARGV[at], tonumber(ARGV[at + 1]), {}
  for n = 0, tonumber(ARGV[at + 2]) - 1 do
    local a = at + 3 + 3 * n
    wanted[n + 1] = {i = tonumber(ARGV[a]), most = tonumber(ARGV[a + 1]), parallel = tonumber(ARGV[a + 2])}
  end
  at = at + 3 + 3 * #wanted
  if not known[run] then
    if alive(KEYS[1], run, now) then
      known[run] = {1, 0, '', -1, -1, 0, 0}
    else
      known[run] = refusal(run, wanted)
      if known[run] then drop(run, wanted) else known[run] = grant(run, now + ttl, wanted) end
    end
  end
  answers[#answers + 1] = known[run]
end

for i, s in pairs(scopes) do
  if #s.drops > 0 then
    redis.call('ZREM', rpm(i), unpack(s.drops))
    redis.call('ZREM', held(i), unpack(s.drops))
  end
  if #s.marks > 0 then
    redis.call('ZREMRANGEBYSCORE', rpm(i), '-inf', text(now - WINDOW))
    redis.call('ZADD', rpm(i), unpack(s.marks))
    redis.call('PEXPIRE', rpm(i), WINDOW)
  end
  if #s.holds > 0 then
    redis.call('ZREMRANGEBYSCORE', held(i), '-inf', text(now))
    redis.call('ZADD', held(i), unpack(s.holds))
    local last = redis.call('ZRANGE', held(i), -1, -1, 'WITHSCORES')
    redis.call('PEXPIREAT', held(i), last[2])
  end
end
return answers
