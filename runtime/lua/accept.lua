-- accept: a request becomes a run.
-- KEYS  1 {p}:run:<run>   2 {p}:body:<run>   3 {p}:live   4 {p}:bytes   5 {p}:requests
-- ARGV  1 run  2 e  3 s  4 sealed body  5 deadline ms from now  6 checks due ms from now  7 most runs  8 most bytes
--       9 families  10 watcher  11 policy  12 key id  13 stream flag
--       14 ms that the ended run is kept, '' = as any  15 fields that are set: keepbody, background
-- With an Idempotency-Key, see KEYS 7 and on: hashes with run, life (which run of this key it is, from 0), asked, fate
-- ('' = not ended, kept, forgotten). Its answers: {2, run} that run is the one, watched now | {3, run} the key came with
-- another request | {4, run} it has ended and is no longer here | {5, life} be this life | {6} nobody knows: ask the archive
-- | {7, run} it is being cancelled: it has no answer for anybody, ask again when it has ended
-- KEYS  6 {p}:once, since when these hashes are complete   7... {p}:once:<name> by each key of the ring, current first
-- ARGV  16 life  17 '1' = the archive was asked  18... what is asked, by each key of the ring
-- A body that will be put aside when its run has ended counts together with those that lie aside already.
-- Returns {1, live} accepted (or accepted before) | {0, live, bytes} over the bound.
-- The hash is written last: without it the run does not exist, and a repeat does everything again.
local function same_before(p, keep, life)
  local known = false
  for i = 7, #KEYS do
    local m = call('HMGET', KEYS[i], 'run', 'life', 'asked', 'fate')
    local r = m[1] and call('HMGET', p .. ':run:' .. m[1], 'state', 'watchers', 'cancel') or {}
    local lost = m[4] == '' and not r[1]
    known = known or m[1]
    if m[1] and m[4] ~= 'forgotten' and not lost then
      if m[3] ~= ARGV[i + 11] then return {3, m[1]} end
      if not r[1] then return {4, m[1]} end
      for _, word in ipairs(words(r[2])) do
        if word == ARGV[10] then return m[1] == ARGV[1] and {1, call('ZCARD', KEYS[3])} or {2, m[1]} end
      end
      if r[1] ~= 'ended' then
        if r[3] then return {7, m[1]} end
        if r[2] == '' then call('ZREM', p .. ':left', m[1]) end -- it is watched again: its grace does not run on
        call('HSET', p .. ':run:' .. m[1], 'watchers', r[2] == '' and ARGV[10] or r[2] .. ' ' .. ARGV[10])
      end
      return {2, m[1]}
    end
    local mine = lost and m[1] == ARGV[1] -- begun by this very call, which failed half-way
    if m[1] and i == 7 and not mine and tonumber(m[2]) >= life then return {5, tonumber(m[2]) + 1} end
  end
  if known or ARGV[17] == '1' then return nil end
  local t, since = now(), tonumber(call('GET', KEYS[6]))
  if not since then
    since = t
    call('SET', KEYS[6], ms(t))
  end
  if t - since < keep then return {6} end
end
-- Bytes that lie aside, 0 for a run that will put nothing there. Those that expired unfetched are counted out when there
-- is no room otherwise.
local function aside(room)
  if not string.find(ARGV[15], 'keepbody', 1, true) then return 0 end
  local p = string.match(KEYS[3], '^{.-}')
  local total = tonumber(call('GET', p .. ':keeping:bytes') or 0)
  if total <= room then return total end
  for _, member in ipairs(call('ZRANGEBYSCORE', p .. ':keeping', '-inf', ms(now()), 'LIMIT', 0, 1000)) do
    total = math.max(0, total - tonumber(string.match(member, '%d+$')))
    call('ZREM', p .. ':keeping', member)
    call('SET', p .. ':keeping:bytes', total)
  end
  return total
end
if KEYS[7] then
  local seen = same_before(string.match(KEYS[3], '^{.-}'), tonumber(ARGV[14]), tonumber(ARGV[16]))
  if seen then return seen end
end
if call('EXISTS', KEYS[1]) == 1 then return {1, call('ZCARD', KEYS[3])} end
local live, bytes = call('ZCARD', KEYS[3]), tonumber(call('GET', KEYS[4]) or 0)
if live == 0 and bytes ~= 0 then call('SET', KEYS[4], 0); bytes = 0 end
local size = #ARGV[4]
if live >= tonumber(ARGV[7]) or bytes + size + aside(tonumber(ARGV[8]) - bytes - size) > tonumber(ARGV[8]) then return {0, live, bytes} end
local t = now()
call('ZADD', KEYS[3], t + tonumber(ARGV[6]), ARGV[1])
if call('EXISTS', KEYS[2]) == 0 then call('MSET', KEYS[2], ARGV[4], KEYS[4], bytes + size) end
call('XADD', KEYS[5], '*', 'e', ARGV[2], 's', ARGV[3])
local more = {}
if ARGV[14] ~= '' then more = {'keep', ARGV[14]} end
for _, name in ipairs(words(ARGV[15])) do
  more[#more + 1] = name
  more[#more + 1] = 1
end
if KEYS[7] then
  more[#more + 1] = 'once'
  more[#more + 1] = KEYS[7]
  call('HSET', KEYS[7], 'run', ARGV[1], 'life', ARGV[16], 'asked', ARGV[18], 'fate', '')
  call('PEXPIRE', KEYS[7], ARGV[5] + ARGV[14])
end
call('HSET', KEYS[1], 'state', 'checking', 'families', ARGV[9], 'watchers', ARGV[10], 'policy', ARGV[11],
  'key', ARGV[12], 'stream', ARGV[13], 'a', ARGV[2], 'as', ARGV[3], 'bytes', size,
  'deadline', ms(t + tonumber(ARGV[5])), 'seq', 0, 'epoch', 0, 't:accepted', ms(t), unpack(more))
return {1, live + 1}
