-- places: where runs stand, for readers that have heard nothing for a while.
-- KEYS  {p}:run:<run> ...
-- Returns `epoch-seq` for each, '' for one that is gone.
local out = {}
for i, key in ipairs(KEYS) do
  local r = call('HMGET', key, 'epoch', 'seq')
  out[i] = r[1] and r[1] .. '-' .. r[2] or ''
end
return out
