-- regate: put a cleared run back to the gate that neither waits there nor lies in its lane (a step before it was cut off).
-- KEYS  1 {p}:run:<run>
-- ARGV  1 p  2 run
-- Returns 1 when it was put back.
local r = hash(KEYS[1])
if r.state ~= 'queued' then return 0 end
if r.entry and #call('XRANGE', r.lane, r.entry, r.entry) > 0 then return 0 end
if not r.entry and call('ZSCORE', gate_of(ARGV[1], r.pool) .. '|' .. r.lanename .. ':waiting', ARGV[2]) then return 0 end
if r.entry then call('HDEL', KEYS[1], 'entry') end
wait_at_gate(ARGV[1], ARGV[2], r, now())
pump(ARGV[1], r.pool, 1)
return 1
