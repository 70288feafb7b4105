-- verdict: store one family's answer once; whoever completes the set moves the run on.
-- KEYS  1 {p}:run:<run>   2 {p}:requests
-- ARGV  1 p  2 run  3 family  4 entry ('' = none to acknowledge)  5 outcome  6 stored verdict ('' when missing)
--       7 pool  8 lane  9 tenant  10 sealed frame  11 fact kind  12 fact e  13 fact s  14 retention ms  15 frame headers
--       16 what happens when the last watcher leaves ('' = as accepted)  17 weight  18 cost  19 priority at the gate
-- Returns {moved, state}: moved 1 when this call cleared or refused the run.
-- A run that nobody watches any more follows its policy from here on, now that authorization has said it.
-- Authorization outranks: nothing is decided before it has answered, and its refusal is the one that is shown.
local p, run, family = ARGV[1], ARGV[2], ARGV[3]
local r = hash(KEYS[1])

local function ack()
  if ARGV[4] ~= '' then call('XACK', KEYS[2], family, ARGV[4]) end
end

if r.state ~= 'checking' then
  ack()
  return {0, r.state or 'gone'}
end

local due, wanted = words(r.families), false
for _, name in ipairs(due) do wanted = wanted or name == family end
if wanted and not r['o:' .. family] then
  local fields = {'o:' .. family, ARGV[5]}
  local function put(name, value)
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
      r[name] = value
    end
  end
  put('v:' .. family, ARGV[6])
  if ARGV[5] == 'refuse' then
    put('rd:' .. family, ARGV[10])
    put('re:' .. family, ARGV[12])
    put('rs:' .. family, ARGV[13])
    put('rh:' .. family, ARGV[15])
  end
  if family == 'authorization' then
    put('pool', ARGV[7])
    put('lanename', ARGV[8])
    put('tenant', ARGV[9])
    put('policy', ARGV[16])
    put('weight', ARGV[17])
    put('cost', ARGV[18])
    put('priority', ARGV[19])
    if (r.watchers or '') == '' and ARGV[5] ~= 'refuse' and depart(p, run, r.policy) == 'cancel' then
      put('cancel', r.leaver or 'client')  -- whoever claims it before it is ended stops at once
    end
  end
  call('HSET', KEYS[1], unpack(fields))
  r['o:' .. family] = ARGV[5]
end

local function refuse(by)
  local frame = {kind = 'error', n = 1, d = r['rd:' .. by], h = r['rh:' .. by] or ''}
  local fact = {kind = 'RequestRefused', e = r['re:' .. by], s = r['rs:' .. by], outcome = 'refused'}
  finish(p, run, r, frame, fact, ARGV[14])
end

local function clear()
  local t = now()
  local key, passes = lane_of(p, r.pool, r.lanename), is_open(p, r.pool, r.lanename, t)
  local cleared = {'state', 'queued', 'lane', key, 't:cleared', ms(t)}
  call('SADD', p .. ':lanes', key)
  call('ZADD', p .. ':live', 'XX', r.deadline, run)
  if passes then
    cleared[7], cleared[8] = 'entry', into_lane(p, r.pool, r.lanename, run)
  else
    wait_at_gate(p, run, r, t)
  end
  call('HSET', KEYS[1], unpack(cleared))
  if not passes then pump(p, r.pool, 1) end
end

local moved, complete = 0, true
if r['o:authorization'] then
  for _, name in ipairs(due) do
    complete = complete and r['o:' .. name] ~= nil
  end
  local by = r['o:authorization'] == 'refuse' and 'authorization' or nil
  for _, name in ipairs(due) do
    if not by and r['o:' .. name] == 'refuse' then by = name end
  end
  if by then
    refuse(by)
    r.state, moved = 'ended', 1
  elseif complete then
    clear()
    r.state, moved = 'queued', 1
  end
end
ack()
return {moved, r.state}
