-- flush: store data frames of runs of one partition and push the same bytes, all of them in one message per ingress.
-- KEYS  of each run: {p}:run:<run>, {p}:reply:<run>
-- ARGV  1 p  then of each run: its head in a push of many (see MANY), owner, the frame's place `epoch-sequence`, that
--       sequence, events, sealed frame, headers, how many events carried what was generated, this frame's too
-- Returns a word for each: 'ok' | 'cancel' (stored, and somebody wants it stopped) | 'lost' | 'gap' (the sequence does
--       not fit) | 'expired' (the stream is gone under its owner) | 'error <text>' (the server refused).
-- Each run is a step of its own: what befalls one touches no other. An owner has one epoch, so the place is its own.
local doors = {}

local function tell(door, head, h, d)
  local to = doors[door]
  if not to then
    to = {n = 0, heads = {}, bytes = {}}
    doors[door] = to
  end
  local n = to.n + 1
  to.n, to.heads[n], to.bytes[2 * n - 1], to.bytes[2 * n] = n, head, h, d
end

local function tell_all(watchers, head, h, d)
  local alone = string.match(watchers or '', '^([^# ]+)#%S*$')
  if alone then return tell(alone, head, h, d) end
  local seen = {}
  for _, watcher in ipairs(words(watchers)) do
    local door = string.match(watcher, '^[^#]+')
    if not seen[door] then
      seen[door] = true
      tell(door, head, h, d)
    end
  end
end

local function flush(key, reply, a)
  local r = call('HMGET', key, 'owner', 'state', 'seq', 'watchers', 'cancel')
  if r[1] ~= ARGV[a + 1] or r[2] ~= 'running' then return 'lost' end
  local last, n, d, h, done = ARGV[a + 3], ARGV[a + 4], ARGV[a + 5], ARGV[a + 6], r[5] and 'cancel' or 'ok'
  if r[3] == last then return done end
  if r[3] + n ~= tonumber(last) then return 'gap' end
  local fields = {'k', 'data', 'n', n, 'd', d}
  if h ~= '' then
    fields[7], fields[8] = 'h', h
  end
  if not store(reply, ARGV[a + 2], r[3] == '0', fields) then return 'expired' end
  if r[3] ~= '0' then call('HSET', key, 'seq', last, 'said', ARGV[a + 7])
  else call('HSET', key, 'seq', last, 'said', ARGV[a + 7], 't:first', ms(now())) end
  tell_all(r[4], ARGV[a], h, d)
  return done
end

local out = {}
for i = 1, #KEYS / 2 do
  local stored, said = pcall(flush, KEYS[2 * i - 1], KEYS[2 * i], 8 * i - 6)
  out[i] = stored and said or 'error ' .. tostring(type(said) == 'table' and said.err or said)
end
for door, to in pairs(doors) do
  call('SPUBLISH', ARGV[1] .. ':push:' .. door, MANY .. table.concat(to.heads, ' ') .. '\n' .. table.concat(to.bytes))
end
return out
