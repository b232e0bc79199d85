"""The scripts that every message passes: put, take, settle."""

from pbus.bus.mail import DEAD_KEPT, HANDLED_KEPT
from pbus.bus.redis.mail.lua import FORGET_MS, LETTERS, PRELUDE, SEEN, Script

_TAKE_BYTES = 4 * 1024 * 1024  # of bodies in one answer

# ARGV: [[address, lane, sender and stream, first, count], ...], then h and b of each.
# Returns for each into how many mailboxes it was stored, or -1 where it was refused.
PUT = Script(
    PRELUDE
    + f"local FORGET = {FORGET_MS}\n"
    + """
expire()
local states, everyone, results = {}, nil, {}
local refused, refused_all, refused_any = {}, {}, {}
local function state(box)
  if states[box] == nil then
    local found = call('HMGET', key('box', box), 'max', 'n', 'big', 'shared')
    states[box] = found[1] and {max = found[1] + 0, n = found[2] + 0, big = found[3] + 0,
      is_shared = found[4] == '1', added = 0, new = {d = 0, s = 0}, known = {}, last = {}}
  end
  return states[box]
end
local function recipients(address)
  if address ~= '*' then return state(address) and {address} or {} end
  if not everyone then
    everyone = {}
    for _, box in ipairs(call('ZRANGE', boxes, 0, -1)) do
      if not state(box).is_shared then everyone[#everyone + 1] = box end
    end
  end
  return everyone
end
local function last_number(box, stream)
  local known = states[box].known
  if not known[stream] then
    local found = call('HGET', key('last', box), stream)
    known[stream] = found and string.match(found, '^%d+') + 0 or 0
  end
  return known[stream]
end
local function tail(head, bodies, skipped)
  local ids, sizes = unpack(cmsgpack.unpack(head))
  for _ = 1, skipped do
    bodies = string.sub(bodies, sizes[1] + 1)
    table.remove(ids, 1)
    table.remove(sizes, 1)
  end
  return cmsgpack.pack({ids, sizes}), bodies
end
local function add(box, lane, stream, first, many, head, bodies)
  local own, skipped = states[box], math.max(0, last_number(box, stream) - first + 1)
  if skipped >= many then return end
  if skipped > 0 then head, bodies = tail(head, bodies, skipped) end
  call('XADD', key('q:' .. lane, box), '*', 'h', head, 'b', bodies)
  many = many - skipped
  if own.n == 0 then own.big = 1 end
  own.n, own.added = own.n + many, own.added + many
  own.big, own.new[lane] = math.max(own.big, many), own.new[lane] + 1
  own.known[stream] = first + skipped + many - 1
  own.last[stream] = own.known[stream]
end
local function missing(targets, stream, first, many)
  local most, is_full = 0, false
  for _, box in ipairs(targets) do
    local own, fresh = states[box], math.min(many, first + many - 1 - last_number(box, stream))
    if fresh > 0 and own.n > 0 and own.n + fresh > own.max then is_full = true end
    most = math.max(most, fresh)
  end
  return most, is_full
end
local function would_overtake(address, lane)
  return refused_all[lane] or refused[lane .. address] or (address == '*' and refused_any[lane])
end
for i, spec in ipairs(cmsgpack.unpack(ARGV[1])) do
  local address, lane, stream, first, many = unpack(spec)
  stream = stream .. lane .. (address == '*' and '*' or '')
  local targets = recipients(address)
  local most, is_full = missing(targets, stream, first, many)
  if most > 0 and (is_full or would_overtake(address, lane)) then
    refused[lane .. address], refused_any[lane] = true, true
    if address == '*' then refused_all[lane] = true end
    results[i] = -1
  else
    for _, box in ipairs(targets) do
      add(box, lane, stream, first, many, ARGV[2 * i], ARGV[2 * i + 1])
    end
    results[i] = #targets
  end
end
local function forget_old(last)
  local old, pairs_of = {}, call('HGETALL', last)
  for i = 1, #pairs_of, 2 do
    if now - string.match(pairs_of[i + 1], '%d+$') > FORGET then old[#old + 1] = pairs_of[i] end
  end
  for _, stream in ipairs(old) do call('HDEL', last, stream) end
end
for box, own in pairs(states) do
  if own and own.added > 0 then
    call('HINCRBY', key('box', box), 'n', own.added)
    call('HSET', key('box', box), 'big', own.big)
    local last, is_new = key('last', box), false
    for stream, number in pairs(own.last) do
      is_new = call('HSET', last, stream, number .. ' ' .. now) == 1 or is_new
    end
    if is_new and call('HLEN', last) % 64 == 0 then forget_old(last) end
    for lane, many in pairs(own.new) do wake(box, lane, many) end
  end
end
return results
"""
)

# ARGV: holder, [[[mailbox, lane, how many, 1 to recover, [entries known]], ...], 1 to wait,
# 1 if back after it was given up, [[mailbox, lane], ...] to wait for no longer when something is
# found, the same in any case]. Returns nothing when the holder was given up; else entries
# (pair, queue, entry, fields, which are settled) and the ms until the next retry, or -1.
TAKE = Script(
    PRELUDE
    + LETTERS
    + SEEN
    + f"local BYTES = {_TAKE_BYTES}\n"
    + """
local holder, ask = ARGV[1], cmsgpack.unpack(ARGV[2])
local wanted, is_waiting, is_back, mine, stale = unpack(ask)
for _, prefix in ipairs(call('ZRANGE', gone, 0, -1)) do
  if string.sub(holder, 1, #prefix) == prefix then
    if is_back == 0 then return {} end
    call('ZREM', gone, prefix)
  end
end
local entries, bytes = {}, 0
local function hand_out(pair, queue, entry, fields, flags)
  local box, slot = wanted[pair][1], queue .. entry
  local ids = cmsgpack.unpack(fields[2])[1]
  local hits, skipped, settled = seen(box, ids), 0, 0
  if flags then _, settled = string.gsub(flags, '1', '') end
  if hits then
    flags = flags or string.rep('0', #ids)
    for i in pairs(hits) do
      if string.sub(flags, i, i) == '0' then
        flags = string.sub(flags, 1, i - 1) .. '1' .. string.sub(flags, i + 1)
        skipped = skipped + 1
      end
    end
  end
  local live = #ids - settled - skipped
  if live == 0 then
    call('XACK', key('q:' .. queue, box), 'g', entry)
    call('XDEL', key('q:' .. queue, box), entry)
    call('HDEL', key('part', box), slot, '!' .. slot)
  else
    if skipped > 0 then call('HSET', key('part', box), slot, flags) end
    entries[#entries + 1] = {pair, queue, entry, fields, flags or ''}
    bytes = bytes + #fields[4]
  end
  if skipped > 0 then
    local was_tried = fields[6] and string.sub(fields[6], 1, 2) ~= '1 '
    count(box, {n = -skipped, r = was_tried and -skipped or 0})
  end
  return live, skipped
end
local function promote(box)
  for _, member in ipairs(call('ZRANGEBYSCORE', key('later', box), '-inf', now, 'LIMIT', 0, 1000)) do
    local lane, letter = unpack(cmsgpack.unpack(member))
    store(box, string.upper(lane), letter)
    call('ZREM', key('later', box), member)
    wake(box, lane, 1)
  end
end
local function recover(pair, queue, known)
  local box, got, start = wanted[pair][1], 0, '-'
  local stream = key('q:' .. queue, box)
  repeat
    local pending = call('XPENDING', stream, 'g', start, '+', 100, holder)
    for _, item in ipairs(pending) do
      local entry = item[1]
      start = '(' .. entry
      local found = not known[queue .. entry] and call('XRANGE', stream, entry, entry)[1]
      if found then
        local flags = call('HGET', key('part', box), queue .. entry)
        local live, skipped = hand_out(pair, queue, entry, found[2], flags)
        count(box, {h = -skipped})
        got = got + live
      end
    end
  until #pending < 100
  return got
end
local function read(pair, queue, want, big)
  local box, got = wanted[pair][1], 0
  local stream = key('q:' .. queue, box)
  while got < want and bytes < BYTES and call('XLEN', stream) > 0 do
    local many = math.max(1, math.min(64, math.floor((want - got) / big)))
    local reply = call('XREADGROUP', 'GROUP', 'g', holder, 'COUNT', many, 'STREAMS', stream, '>')
    if not reply then break end
    local found = reply[1][2]
    for _, item in ipairs(found) do got = got + hand_out(pair, queue, item[1], item[2], false) end
    if #found < many then break end
  end
  count(box, {h = got})
  return got
end
local promoted, due = {}, -1
for pair, want in ipairs(wanted) do
  local box, lane, many, is_recovering, entries_known = unpack(want)
  local big = call('HGET', key('box', box), 'big')
  if big then
    if not promoted[box] then promote(box); promoted[box] = true end
    for _, queue in ipairs({string.upper(lane), lane}) do
      if is_recovering == 1 then
        local known = {}
        for _, entry in ipairs(entries_known) do known[entry] = true end
        many = many - recover(pair, queue, known)
      end
      many = many - read(pair, queue, many, big + 0)
    end
  end
end
for _, pair in ipairs(stale) do call('ZREM', key('wait:' .. pair[2], pair[1]), holder) end
if #entries > 0 or is_waiting == 0 then
  for _, pair in ipairs(mine) do call('ZREM', key('wait:' .. pair[2], pair[1]), holder) end
else
  for _, want in ipairs(wanted) do
    if promoted[want[1]] then call('ZADD', key('wait:' .. want[2], want[1]), 'NX', now, holder) end
  end
  for box in pairs(promoted) do
    local at = call('ZRANGE', key('later', box), 0, 0, 'WITHSCORES')[2]
    if at and (due < 0 or at - now < due) then due = math.max(0, at - now) end
  end
end
return {entries, due}
"""
)

# ARGV: lane, mailbox: who was woken does not wait any longer, so another is.
PASS_ON = Script(PRELUDE + "wake(ARGV[2], ARGV[1], 1) return 0")

# ARGV: mailbox, queue, entry, of suspects whose handlers start now
STARTED = Script(
    PRELUDE
    + """
for i = 1, #ARGV, 3 do
  local box, queue, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local stream = key('q:' .. queue, box)
  if call('EXISTS', stream) == 1 and #call('XPENDING', stream, 'g', entry, entry, 1) == 1 then
    call('HSET', key('part', box), '!' .. queue .. entry, 1)
  end
end
return 0
"""
)

# ARGV: [[mailbox, queue, entry, its letters, 1 if suspect, 1 if tried before, [which are handled],
# [their ids], [[which, how, delay in ms, reason], ...]], ...]. Returns 1 for each entry that is
# not held any longer, else 0.
SETTLE = Script(
    PRELUDE
    + LETTERS
    + f"local KEPT, KEPT_MS, DEAD = {HANDLED_KEPT}, {FORGET_MS}, {DEAD_KEPT}\n"
    + """
local states = {}
local function state(box)
  if states[box] == nil then
    states[box] = call('EXISTS', key('box', box)) == 1 and {changes = {n = 0, h = 0, r = 0},
      handled = {}, new = {d = 0, s = 0}}
  end
  return states[box]
end
local function send_off(box, own, slot, letter, other)
  local at, how, delay, reason = unpack(other)
  local lane, origin = string.lower(string.sub(slot, 1, 1)), slot .. '/' .. at
  local changes = own.changes
  if how == 'retry' then
    letter.attempt = letter.attempt + 1
    if letter.attempt == 2 then changes.r = changes.r + 1 end
    if delay > 0 then
      call('ZADD', key('later', box), now + delay, cmsgpack.pack({lane, letter, origin}))
    else
      store(box, string.upper(lane), letter)
      own.new[lane] = own.new[lane] + 1
    end
  else
    local h, head, b, body, m, marks = fields_of(letter)
    call('XADD', key('dead', box), 'MAXLEN', '~', DEAD, '*',
      h, head, b, body, m, marks, 'q', lane, 'w', reason)
    changes.n = changes.n - 1
    if letter.attempt > 1 then changes.r = changes.r - 1 end
  end
end
local function flags_of(box, queue, entry, many)
  local flags = call('HGET', key('part', box), queue .. entry)
  if flags then return flags end
  local is_held = #call('XPENDING', key('q:' .. queue, box), 'g', entry, entry, 1) == 1
  return is_held and string.rep('0', many)
end
local function settle(box, own, group)
  local _, queue, entry, many, is_suspect, was_tried, which, _, others = unpack(group)
  local stream, part, slot = key('q:' .. queue, box), key('part', box), queue .. entry
  local flags
  if #which + #others < many or (many > 1 and call('HEXISTS', part, slot) == 1) then
    flags = flags_of(box, queue, entry, many)
    if not flags then return 1 end
  elseif #others == 0 and call('XACK', stream, 'g', entry) == 0 then
    return 1
  end
  local letters
  if #others > 0 then
    if not flags and #call('XPENDING', stream, 'g', entry, entry, 1) == 0 then return 1 end
    local found = call('XRANGE', stream, entry, entry)[1]
    if not found then return 1 end  -- somebody else removed it
    letters = unfold(entry, found[2])
  end
  local changes = own.changes
  local function is_new(at)
    if flags then
      if string.sub(flags, at + 1, at + 1) == '1' then return false end
      flags = string.sub(flags, 1, at) .. '1' .. string.sub(flags, at + 2)
    end
    changes.h = changes.h - 1
    return true
  end
  for _, at in ipairs(which) do
    if is_new(at) then changes.n, changes.r = changes.n - 1, changes.r - was_tried end
  end
  for _, other in ipairs(others) do
    if is_new(other[1]) then
      send_off(box, own, slot, letters[other[1] + 1], other)
    end
  end
  if flags and string.find(flags, '0', 1, true) then
    call('HSET', part, slot, flags)
    return 0
  end
  if flags or #others > 0 then call('XACK', stream, 'g', entry) end
  call('XDEL', stream, entry)
  if flags or is_suspect == 1 then call('HDEL', part, slot, '!' .. slot) end
  return 1
end
local function remember(box, ids)
  local found = call('HMGET', key('box', box), 'g', 'gn', 'gt')
  local set, many, since = found[1] or '0', (found[2] or 0) + 0, (found[3] or 0) + 0
  local is_first = many >= KEPT or now - since >= KEPT_MS
  if is_first then
    set, many, since = set == '0' and '1' or '0', 0, now
    call('UNLINK', key('done:' .. set, box))
  end
  for first = 1, #ids, 1000 do
    call('SADD', key('done:' .. set, box), unpack(ids, first, math.min(first + 999, #ids)))
  end
  if is_first then call('PEXPIRE', key('done:' .. set, box), 2 * KEPT_MS) end
  call('HSET', key('box', box), 'g', set, 'gn', many + #ids, 'gt', since)
end
local closed = {}
for i, group in ipairs(cmsgpack.unpack(ARGV[1])) do
  local box = group[1]
  local own = state(box)
  closed[i] = 1
  if own then
    for _, id in ipairs(group[8]) do own.handled[#own.handled + 1] = id end
    closed[i] = settle(box, own, group)
  end
end
for box, own in pairs(states) do
  if own then
    count(box, own.changes)
    if #own.handled > 0 then remember(box, own.handled) end
    for lane, many in pairs(own.new) do wake(box, lane, many) end
  end
end
return closed
"""
)
