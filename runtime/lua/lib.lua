-- Shared head of every script of a run. Each script is "#!lua <flags>" + lib + gate + finish + its own file.
--
-- Rules: read and check everything first; write in an order in which a script that failed half-way (out of memory,
-- a wrong type) can be run again and completes; XACK comes last, because a script that fails after its XACK keeps it.
-- Only keys of one partition {p} are touched.
--
-- Fields of the hash {p}:run:<run>
--   state      checking | queued | running | ended
--   outcome    completed | failed | refused | cancelled      (when ended)
--   families   who must answer, space separated
--   o:<family> pass | refuse | edits | skip | missing        v:<family> the signed verdict as stored
--   rd: rh: re: rs:<family>  sealed error frame, its headers, terminal fact and its signature of a refusal that is held
--   owner      <consumer>:<nonce> of the present owner       epoch  how often it was claimed
--   seq        last SSE event sent                           first  first sequence of the present epoch
--   said       how many of the events carried what was generated
--   watchers   ingress#connection ..., space separated       policy what happens when the last one leaves
--   leaver     client | lost: how the last watcher went, once nobody watches
--   cancel     by whom, once somebody cancelled a running run
--   a, as      the acceptance as signed                      key, stream  for whoever asks later
--   bytes      size of the body                              deadline  hard end, ms of the server's clock
--   keep       ms that its answer is kept once it has ended, nothing = as any
--   keepbody   1 when its body is kept with its answer       background  1 when it goes on without a client
--   deleted    1 once a client has deleted its answer
--   once       the key {p}:once:<name> of its Idempotency-Key
--   lane, entry  the cleared stream and the entry's id; a lane without an entry: it waits at the gate
--   pool, lanename, tenant, weight, cost, priority   what authorization said of its place in the queue (see gate.lua)
--   charged    what its tenant was charged when it passed the gate
--   t:accepted t:cleared t:claimed t:first t:ended           ms of the server's clock

local call = redis.call

local function now()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

local function ms(x) return string.format('%.0f', x) end

-- A whole hash as a table: in RESP3 the server makes it, which a loop here would do slower.
local function hash(key)
  redis.setresp(3)
  local reply = call('HGETALL', key)
  redis.setresp(2)
  return reply.map
end

local function words(text)
  local out = {}
  for word in string.gmatch(text or '', '%S+') do out[#out + 1] = word end
  return out
end

-- Append the frame <epoch>-<seq>; true also when an earlier try of the same write has stored it.
local function store(key, id, fresh, fields)
  local reply
  if fresh then reply = redis.pcall('XADD', key, id, unpack(fields))
  else reply = redis.pcall('XADD', key, 'NOMKSTREAM', id, unpack(fields)) end
  if type(reply) == 'table' and reply.err then
    if string.find(reply.err, 'equal or smaller', 1, true) then return true end
    error(reply)
  end
  return reply ~= false
end

-- A push that carries frames of many runs begins with this line; behind it the heads of all, then their bytes in turn.
-- It has the form of a single frame's head: a door that does not know it takes it for a run that it does not watch.
local MANY = '- 0 0 0 many 0\n'

-- Push the stored bytes to every watching ingress, once each. Header: run epoch seq events kind length-of-h.
local function push(p, run, watchers, epoch, seq, n, kind, d, h)
  local seen = {}
  for _, watcher in ipairs(words(watchers)) do
    local door = string.match(watcher, '^[^#]+')
    if not seen[door] then
      seen[door] = true
      local head = run .. ' ' .. epoch .. ' ' .. seq .. ' ' .. n .. ' ' .. kind .. ' ' .. #h .. '\n'
      call('SPUBLISH', p .. ':push:' .. door, head .. h .. d)
    end
  end
end

-- Nobody watches the run any more: {p}:left says when it ends unless somebody comes back (cancel now, grace:<s> later,
-- finish never), so that any process can end it. Returns the policy's word.
local function depart(p, run, policy)
  local word, seconds = string.match(policy, '^(%a+):?(.*)$')
  if word ~= 'finish' then call('ZADD', p .. ':left', ms(now() + 1000 * (tonumber(seconds) or 0)), run) end
  return word
end

-- Drop the body and its share of {p}:bytes. Both change in one call, so that a repeat can't count twice. keep_ms: put it
-- aside under {p}:kept:<run>, where group `archive` finds it, and count it there; nil = nobody wants it.
local function free(p, run, keep_ms)
  local body, total, kept = p .. ':body:' .. run, p .. ':bytes', p .. ':kept:' .. run
  local size = call('STRLEN', body)
  if size > 0 then
    local rest = math.max(0, tonumber(call('GET', total) or 0) - size)
    if keep_ms then
      local aside = p .. ':keeping:bytes'
      call('ZADD', p .. ':keeping', now() + keep_ms, run .. ' ' .. size)
      call('MSET', kept, call('GET', body), body, '', total, rest, aside, tonumber(call('GET', aside) or 0) + size)
    else call('MSET', body, '', total, rest) end
  end
  if keep_ms then call('PEXPIRE', kept, keep_ms) end
  call('DEL', body)
  call('ZREM', p .. ':live', run)
end

-- Drop a body that was put aside, and its share, in the same way.
local function unkeep(p, run)
  local kept, aside = p .. ':kept:' .. run, p .. ':keeping:bytes'
  local size = call('STRLEN', kept)
  if size > 0 then
    call('MSET', kept, '', aside, math.max(0, tonumber(call('GET', aside) or 0) - size))
    call('ZREM', p .. ':keeping', run .. ' ' .. size)
  end
  call('DEL', kept)
end

-- Whether this consumer still holds the entry in its group.
local function holds(stream, group, consumer, entry)
  local row = call('XPENDING', stream, group, entry, entry, 1)[1]
  return row ~= nil and row[2] == consumer
end
