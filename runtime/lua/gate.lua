-- The fair gate: what stands in front of the cleared streams of a pool, so that routers stay plain consumers.
--
-- Promise: the entries in both lanes of a pool never pass the slots that routers announce for it. Whoever clears a run
-- puts it into its lane when nobody waits and there is room, else it is indexed here. Whoever makes room (the end of a
-- run, an announcement) lets the fairest in: interactive before batch, which has one turn in BATCH_TURN while both wait,
-- so that it never stands still; then the tenant with the least virtual time
-- (start-time fair queueing: a run moves its tenant on by cost / weight); then, inside a tenant, priority and age.
--
-- Keys of a pool, g = {p}:gate:<pool>; no pool has a `|` in its name, so that none's keys are another's
--   g                    hash  cap: announced slots; until: when they are to be added up anew; v:<lane>: virtual time;
--                              turns: how many were let in while both lanes waited
--   g|slots              hash  router -> `<slots> <until ms>`
--   g|<lane>:tenants     zset  waiting tenant -> virtual start of its next run
--   g|<lane>:tenant:<t>  zset  waiting run -> -priority; equals stand by run id, which is by age
--   g|<lane>:passed      zset  tenant that has nothing waiting -> its virtual time, until v:<lane> has passed it
--   g|<lane>:waiting     zset  waiting run -> since when, ms of the server's clock
-- A pool's lane has somebody waiting as long as its `tenants` exist; what else is left of a step that was cut off is
-- dropped by the next one. What is indexed twice is there once; a run that is in its lane already is only dropped.

local BATCH_TURN = 10
local PASSED_MS = 3600000 -- how long an idle pool remembers who was served beyond his share
local FAR_MS = 600000 -- an announcement that ends later was made before the server's clock was set back

local function gate_of(p, pool) return p .. ':gate:' .. pool end

local function lane_of(p, pool, lane) return p .. ':cleared:' .. pool .. ':' .. lane end

-- The announced slots, added up anew when an announcement has ended.
local function add_up(g, t)
  local flat, cap, soonest = call('HGETALL', g .. '|slots'), 0, t + 1000
  for i = 1, #flat, 2 do
    local slots, ends = string.match(flat[i + 1], '^(%d+) (%d+)$')
    if tonumber(ends) > t and tonumber(ends) <= t + FAR_MS then
      cap, soonest = cap + tonumber(slots), math.min(soonest, tonumber(ends))
    else
      call('HDEL', g .. '|slots', flat[i])
    end
  end
  call('HSET', g, 'cap', cap, 'until', ms(soonest))
  return cap
end

local function room(p, pool, t)
  local g = gate_of(p, pool)
  local known = call('HMGET', g, 'cap', 'until')
  local cap = known[1] and tonumber(known[2]) > t and tonumber(known[1]) or add_up(g, t)
  return cap - call('XLEN', lane_of(p, pool, 'interactive')) - call('XLEN', lane_of(p, pool, 'batch'))
end

-- Whether a run may pass at once: there is room, and nobody waits who goes before it.
local function is_open(p, pool, lane, t)
  local g = gate_of(p, pool)
  if call('EXISTS', g .. '|interactive:tenants', g .. '|' .. lane .. ':tenants') > 0 then return false end
  return room(p, pool, t) > 0
end

-- Append the pointer of a run to its lane; the entry's id.
local function into_lane(p, pool, lane, run)
  local key = lane_of(p, pool, lane)
  local e = '{"id":"' .. run .. '/cleared","type":"RequestCleared","v":1,"by":"script","run":"' .. run
    .. '","data":{"run":"' .. run .. '","pool":"' .. pool .. '","lane":"' .. lane .. '"}}'
  local id = call('XADD', key, 'NOMKSTREAM', '*', 'e', e)
  if not id then
    call('XGROUP', 'CREATE', key, 'router', '0', 'MKSTREAM')
    id = call('XADD', key, '*', 'e', e)
  end
  return id
end

-- Index a run. A tenant that comes back begins where virtual time stands, or where it had got to if that is further.
local function wait_at_gate(p, run, r, t)
  local g = gate_of(p, r.pool)
  local l = g .. '|' .. r.lanename
  call('ZADD', l .. ':tenant:' .. r.tenant, -tonumber(r.priority or 0), run)
  if not call('ZSCORE', l .. ':tenants', r.tenant) then
    local v = tonumber(call('HGET', g, 'v:' .. r.lanename) or 0)
    local passed = tonumber(call('ZSCORE', l .. ':passed', r.tenant) or 0)
    call('ZADD', l .. ':tenants', math.max(v, passed), r.tenant)
  end
  call('ZREM', l .. ':passed', r.tenant)
  call('ZADD', l .. ':waiting', 'NX', ms(t), run)
end

-- Take a run out of the index; a tenant's last one leaves its virtual time behind.
local function unlist(l, tenant, run)
  call('ZREM', l .. ':waiting', run)
  call('ZREM', l .. ':tenant:' .. tenant, run)
  if call('EXISTS', l .. ':tenant:' .. tenant) == 0 then
    local reached = call('ZSCORE', l .. ':tenants', tenant)
    if reached then
      call('ZADD', l .. ':passed', reached, tenant)
      call('PEXPIRE', l .. ':passed', PASSED_MS)
      call('ZREM', l .. ':tenants', tenant)
    end
  end
end

-- Let one waiting run of a lane in; false when nobody waits there.
local function admit_one(p, pool, lane)
  local g = gate_of(p, pool)
  local l = g .. '|' .. lane
  while true do
    local tenant, start = unpack(call('ZRANGE', l .. ':tenants', 0, 0, 'WITHSCORES'))
    if not tenant then return false end
    local run = call('ZRANGE', l .. ':tenant:' .. tenant, 0, 0)[1] or ''
    local key = p .. ':run:' .. run
    local r = call('HMGET', key, 'state', 'entry', 'cost', 'weight')
    local fits = r[1] == 'queued' and not r[2]
    if fits then
      local cost = tonumber(r[3] or 1)
      call('HSET', key, 'entry', into_lane(p, pool, lane, run), 'charged', cost)
      call('HSET', g, 'v:' .. lane, start)
      call('ZADD', l .. ':tenants', tonumber(start) + cost / tonumber(r[4] or 1), tenant)
      call('ZREMRANGEBYSCORE', l .. ':passed', '-inf', '(' .. start)
    end
    unlist(l, tenant, run)
    if fits then return true end
  end
end

-- The lane whose turn it is, nil when nobody waits.
local function next_lane(g)
  local batch = call('EXISTS', g .. '|batch:tenants') == 1
  if call('EXISTS', g .. '|interactive:tenants') == 0 then return batch and 'batch' or nil end
  return batch and call('HINCRBY', g, 'turns', 1) % BATCH_TURN == 0 and 'batch' or 'interactive'
end

-- Let in as many as there is room for, at most `most`; how many.
local function pump(p, pool, most)
  local g, count = gate_of(p, pool), 0
  if call('EXISTS', g .. '|interactive:tenants', g .. '|batch:tenants') == 0 then return 0 end
  local free = math.min(most, room(p, pool, now()))
  while count < free do
    local lane = next_lane(g)
    if not lane then break end
    if admit_one(p, pool, lane) then count = count + 1 end
  end
  return count
end

-- A run ends: it waits no more, and its tenant is charged what it cost in the end instead of what was expected. That is
-- for once: `state` says already that it has ended, and a repeat comes without tokens.
local function leave_gate(p, run, r, tokens)
  if not r.lane then return end
  local l = gate_of(p, r.pool) .. '|' .. r.lanename
  if not r.entry then unlist(l, r.tenant, run) end
  if not r.charged or not tokens or tokens == tonumber(r.charged) then return end
  if call('EXISTS', l .. ':tenants', l .. ':passed') == 0 then return end
  for _, key in ipairs({l .. ':tenants', l .. ':passed'}) do
    if call('ZSCORE', key, r.tenant) then
      call('ZINCRBY', key, (tokens - tonumber(r.charged)) / tonumber(r.weight or 1), r.tenant)
    end
  end
end

-- Drop the cleared entry of a run, and let the next ones in. XACK last: an entry that is still pending is found again.
local function drop_entry(lane, entry)
  if not entry then return end
  local p, pool = string.match(lane, '^([^:]+):cleared:(.+):[^:]+$')
  call('HDEL', p .. ':starts:router', entry)
  call('XDEL', lane, entry)
  pump(p, pool, 1)
  call('XACK', lane, 'router', entry)
end

-- What a router needs of a run's hash beside the verdicts.
local CLAIMED = {a = true, as = true, cancel = true, deadline = true, ['t:accepted'] = true, ['t:cleared'] = true}

-- The fields by which a run becomes `owner`'s, added to `fields`.
local function owned(fields, r, owner, t)
  local n = #fields
  fields[n + 1], fields[n + 2], fields[n + 3], fields[n + 4] = 'state', 'running', 'owner', owner
  fields[n + 5], fields[n + 6], fields[n + 7], fields[n + 8] = 'epoch', r.epoch + 1, 'first', r.seq + 1
  fields[n + 9], fields[n + 10] = 't:claimed', ms(t)
  return fields
end

-- What the claim script answers. epoch: the claim's.
local function claim_of(p, run, r, epoch, t)
  local body = call('GET', p .. ':body:' .. run) or ''
  local out = {'ok', tonumber(epoch), tonumber(r.seq), r.deadline - t, body}
  for name, value in pairs(r) do
    if CLAIMED[name] or string.sub(name, 1, 2) == 'v:' then
      out[#out + 1] = name
      out[#out + 1] = tostring(value)
    end
  end
  return out
end
