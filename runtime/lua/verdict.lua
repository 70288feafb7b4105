-- verdict: store the answers of some families once; whoever completes the set moves the run on.
-- KEYS  1 {p}:requests  then of each run: {p}:run:<run>
-- ARGV  1 p  2 retention ms  then of each run: run, router that takes it at once ('' = none), owner if so
--       (router:nonce), the pool that it has a place of, how many families, and for each of these:
--       1 family  2 entry ('' = none to acknowledge)  3 outcome  4 stored verdict ('' when missing)
--       5 pool  6 lane  7 tenant  8 sealed frame  9 frame headers  10 fact kind  11 fact e  12 fact s
--       13 what happens when the last watcher leaves ('' = as accepted)  14 weight  15 cost  16 priority at the gate
-- Returns for each run {moved, state}: moved 1 when this call cleared or refused it; and when it is cleared into a lane
-- of that pool, the lane's next entry, delivered to that router: {moved, state, entry, its envelope}, and if it is this
-- run's, as it is unless others lie before it, the answer of a claim {moved, state, entry, envelope, {'ok', ...}}.
-- Asked again by the same owner it answers the same. 'error <text>' when the server refused.
-- Each run is a step of its own: what befalls one touches no other.
-- A run that nobody watches any more follows its policy from here on, now that authorization has said it.
-- Authorization outranks: nothing is decided before it has answered, and its refusal is the one that is shown.
local p, retention, EACH = ARGV[1], ARGV[2], 16

-- Of one run: its families' answers stand from ARGV[first] to ARGV[last].
local function verdict(key, run, router, owner, place, first, last)
  local r = hash(key)

  local function ack()
    for i = first, last, EACH do
      if ARGV[i + 1] ~= '' then call('XACK', KEYS[1], ARGV[i], ARGV[i + 1]) end
    end
  end

  if r.state ~= 'checking' then
    ack()
    if r.state == 'running' and r.owner == owner then
      local row = call('XRANGE', r.lane, r.entry, r.entry)[1]
      return {0, r.state, r.entry, row and row[2][2] or '', claim_of(p, run, r, r.epoch, now())}
    end
    return {0, r.state or 'gone'}
  end

  local due, wanted, fields = words(r.families), {}, {}
  for _, name in ipairs(due) do wanted[name] = true end

  local function put(name, value)
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
      r[name] = value
    end
  end

  for i = first, last, EACH do
    local family, outcome = ARGV[i], ARGV[i + 2]
    if wanted[family] and not r['o:' .. family] then
      put('o:' .. family, outcome)
      put('v:' .. family, ARGV[i + 3])
      if outcome == 'refuse' then
        put('rd:' .. family, ARGV[i + 7])
        put('rh:' .. family, ARGV[i + 8])
        put('re:' .. family, ARGV[i + 10])
        put('rs:' .. family, ARGV[i + 11])
      end
      if family == 'authorization' then
        put('pool', ARGV[i + 4])
        put('lanename', ARGV[i + 5])
        put('tenant', ARGV[i + 6])
        put('policy', ARGV[i + 12])
        put('weight', ARGV[i + 13])
        put('cost', ARGV[i + 14])
        put('priority', ARGV[i + 15])
        if (r.watchers or '') == '' and outcome ~= 'refuse' and depart(p, run, r.policy) == 'cancel' then
          put('cancel', r.leaver or 'client')  -- whoever claims it before it is ended stops at once
        end
      end
    end
  end

  local function write()
    if #fields > 0 then call('HSET', key, unpack(fields)) end
  end

  local function refuse(by)
    local frame = {kind = 'error', n = 1, d = r['rd:' .. by], h = r['rh:' .. by] or ''}
    local fact = {kind = 'RequestRefused', e = r['re:' .. by], s = r['rs:' .. by], outcome = 'refused'}
    finish(p, run, r, frame, fact, retention)
  end

  -- Deliver the next entry of the lane that the run has come into to the router that has a place for it.
  local function hand_over(t)
    local reply = redis.pcall('XREADGROUP', 'GROUP', 'router', router, 'COUNT', 1, 'STREAMS', r.lane, '>')
    if not reply or reply.err then return {} end
    local id, row = unpack(reply[1][2][1])
    if id ~= r.entry then return {id, row[2]} end
    owned(fields, r, owner, t)
    r.state = 'running'
    return {id, row[2], claim_of(p, run, r, r.epoch + 1, t)}
  end

  -- The answers are written with what comes of them, in one call.
  local function clear()
    local t, handed = now(), {}
    local lane, passes = lane_of(p, r.pool, r.lanename), is_open(p, r.pool, r.lanename, t)
    call('SADD', p .. ':lanes', lane)
    call('ZADD', p .. ':live', 'XX', r.deadline, run)
    put('state', 'queued')
    put('lane', lane)
    put('t:cleared', ms(t))
    if passes then
      put('entry', into_lane(p, r.pool, r.lanename, run))
      if router ~= '' and r.pool == place then handed = hand_over(t) end
    else
      wait_at_gate(p, run, r, t)
    end
    write()
    if not passes then pump(p, r.pool, 1) end
    return handed
  end

  local moved, complete, handed = 0, true, {}
  if r['o:authorization'] then
    for _, name in ipairs(due) do
      complete = complete and r['o:' .. name] ~= nil
    end
    local by = r['o:authorization'] == 'refuse' and 'authorization' or nil
    for _, name in ipairs(due) do
      if not by and r['o:' .. name] == 'refuse' then by = name end
    end
    if by then
      write()
      refuse(by)
      r.state, moved = 'ended', 1
    elseif complete then
      handed, moved = clear(), 1
    else
      write()
    end
  else
    write()
  end
  ack()
  return {moved, r.state, unpack(handed)}
end

local out, at = {}, 3
for i = 2, #KEYS do
  local first, last = at + 5, at + 4 + ARGV[at + 4] * EACH
  local done, said = pcall(verdict, KEYS[i], ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], first, last)
  out[i - 1] = done and said or 'error ' .. tostring(type(said) == 'table' and said.err or said)
  at = last + 1
end
return out
