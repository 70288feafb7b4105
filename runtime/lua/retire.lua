-- retire: forget a consumer that holds nothing. One that still has pending entries stays: deleting it would lose them.
-- KEYS  1 the stream
-- ARGV  1 group  2 consumer
-- Returns 1 when it was removed.
if #call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
