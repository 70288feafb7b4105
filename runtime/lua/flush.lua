-- flush: store one data frame and push the same bytes.
-- KEYS  1 {p}:run:<run>   2 {p}:reply:<run>
-- ARGV  1 p  2 run  3 owner  4 last sequence  5 events  6 sealed frame  7 headers
--       8 how many events carried what was generated, this frame's too
-- Returns 'ok' | 'cancel' (stored, and somebody wants it stopped) | 'lost' | 'gap' (the sequence does not fit)
--       | 'expired' (the stream is gone under its owner).
local r = call('HMGET', KEYS[1], 'owner', 'state', 'seq', 'watchers', 'cancel', 'epoch', 't:first')
if r[1] ~= ARGV[3] or r[2] ~= 'running' then return 'lost' end
local seq, last, n = tonumber(r[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
if seq == last then return r[5] and 'cancel' or 'ok' end
if seq + n ~= last then return 'gap' end
local fields = {'k', 'data', 'n', n, 'd', ARGV[6]}
if ARGV[7] ~= '' then
  fields[7], fields[8] = 'h', ARGV[7]
end
if not store(KEYS[2], r[6] .. '-' .. last, seq == 0, fields) then return 'expired' end
if r[7] then call('HSET', KEYS[1], 'seq', last, 'said', ARGV[8])
else call('HSET', KEYS[1], 'seq', last, 'said', ARGV[8], 't:first', ms(now())) end
push(ARGV[1], ARGV[2], r[4], r[6], last, n, 'data', ARGV[6], ARGV[7])
return r[5] and 'cancel' or 'ok'
