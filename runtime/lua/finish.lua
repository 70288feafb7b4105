-- End a run: last frame, fact, terminal state, freeing. r = its hash, f = {kind, n, d, h}, fact = {kind, e, s, outcome,
-- tokens}: tokens is what it cost in the end, nil = as charged.
-- retention: ms that frames and state stay readable; longer for an answer that group `archive` is to have, until it has
-- it. An Idempotency-Key remembers the same: what was answered or billed, no refusal, no failure before the first token,
-- nothing that was cancelled; how a run in the background ended is kept in any case. Until `state` is written a repeat
-- does everything again (the frame once, the fact perhaps twice under one id, the push perhaps twice at one place);
-- after it only its place in the queue is left.
local function finish(p, run, r, f, fact, retention)
  local key, t = p .. ':run:' .. run, now()
  local billed = tonumber(r.seq or 0) > 0 or (fact.tokens or 0) > 0
  local kept = fact.outcome == 'completed' or (fact.outcome == 'failed' and billed)
  local shown = kept or r.background -- nobody has seen how it ended
  local epoch, seq = tonumber(r.epoch or 0), tonumber(r.seq or 0) + f.n
  store(p .. ':reply:' .. run, epoch .. '-' .. seq, true, {'k', f.kind, 'n', f.n, 'd', f.d, 'h', f.h})
  local times = '{"accepted":' .. (r['t:accepted'] or 0) .. ',"cleared":' .. (r['t:cleared'] or 0)
    .. ',"claimed":' .. (r['t:claimed'] or 0) .. ',"first":' .. (r['t:first'] or (fact.outcome == 'completed' and ms(t)) or 0) .. ',"ended":' .. ms(t) .. '}'
  local entry = {'run', run, 'kind', fact.kind, 'n', epoch, 'e', fact.e, 's', fact.s, 't', times,
                 'a', r.a or '', 'as', r.as or ''}
  for _, family in ipairs(words(r.families)) do
    if r['v:' .. family] then
      entry[#entry + 1] = 'v:' .. family
      entry[#entry + 1] = r['v:' .. family]
    end
  end
  if r.keep and shown then
    entry[#entry + 1], entry[#entry + 2] = 'keep', r.keep
    retention = math.max(tonumber(retention), tonumber(r.keep))
  end
  call('XADD', p .. ':facts', '*', unpack(entry))
  free(p, run, r.keep and shown and r.keepbody and r.keep or nil)
  if (r.watchers or '') == '' then call('ZREM', p .. ':left', run) end
  call('PEXPIRE', p .. ':reply:' .. run, retention)
  call('PEXPIRE', key, retention)
  if r.once and call('HGET', r.once, 'run') == run then
    call('HSET', r.once, 'fate', kept and 'kept' or 'forgotten')
    call('PEXPIRE', r.once, r.keep)
  end
  push(p, run, r.watchers, epoch, seq, f.n, f.kind, f.d, f.h)
  call('HSET', key, 'state', 'ended', 'outcome', fact.outcome, 'seq', seq, 't:ended', ms(t))
  leave_gate(p, run, r, fact.tokens)
  drop_entry(r.lane, r.entry)
  return seq
end

