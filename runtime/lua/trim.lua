-- trim: drop what every group has acknowledged, never anything unread or pending.
-- KEYS  1 the stream
-- ARGV  the groups that must exist; when one is missing nothing is dropped
-- Returns how many entries went.
local found, least = {}, nil
local function after(id)
  local head, tail = string.match(id, '^(%d+)-(%d+)$')
  return {tonumber(head), tonumber(tail)}
end
local function smaller(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end
if call('EXISTS', KEYS[1]) == 0 then return 0 end
for _, group in ipairs(call('XINFO', 'GROUPS', KEYS[1])) do
  local g = {}
  for i = 1, #group, 2 do g[group[i]] = group[i + 1] end
  found[g.name] = true
  local id = after(g['last-delivered-id'])
  id[2] = id[2] + 1
  if tonumber(g.pending) > 0 then id = after(call('XPENDING', KEYS[1], g.name)[2]) end
  if not least or smaller(id, least) then least = id end
end
for _, name in ipairs(ARGV) do
  if not found[name] then return 0 end
end
if not least then return 0 end
return call('XTRIM', KEYS[1], 'MINID', ms(least[1]) .. '-' .. ms(least[2]))
