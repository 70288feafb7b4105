-- pull: read new entries of one stream for several groups at once, each entry told once, with the body of its run.
-- KEYS  1 the stream
-- ARGV  1 p  2 bytes of the longest body that comes along  then triples: group, consumer, count
-- Returns {last entry of the stream, {per group: {entry ...} or why it could not be read}, {entry, fields, body or '', ...}}.
-- Nothing here is believed: who reads a body checks that it is the one that its signed entry names.
local entries, seen, groups = {}, {}, {}
for i = 3, #ARGV, 3 do
  local reply = redis.pcall('XREADGROUP', 'GROUP', ARGV[i], ARGV[i + 1], 'COUNT', ARGV[i + 2], 'STREAMS', KEYS[1], '>')
  local ids = {}
  if reply and reply.err then
    ids = reply.err
  else
    for n, row in ipairs(reply and reply[1][2] or {}) do
      ids[n] = row[1]
      if not seen[row[1]] then
        seen[row[1]] = true
        local run, body = string.match(row[2][2] or '', '"run":"([%w-]+)"'), ''
        if run and call('STRLEN', ARGV[1] .. ':body:' .. run) <= tonumber(ARGV[2]) then
          body = call('GET', ARGV[1] .. ':body:' .. run) or ''
        end
        entries[#entries + 1] = row[1]
        entries[#entries + 1] = row[2]
        entries[#entries + 1] = body
      end
    end
  end
  groups[#groups + 1] = ids
end
local last = call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
return {last and last[1] or '0-0', groups, entries}
