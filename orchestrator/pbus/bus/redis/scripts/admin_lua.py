"""The scripts that look after queues: their leases, what dead consumers held, counts, dead letters."""

from pbus.bus.redis.scripts.common_lua import (
    ALWAYS,
    FOREIGN,
    FORGET_MS,
    MENDING,
    MESSAGES,
    PRELUDE,
    SEEN,
    Script,
)

_KEYS_LIVE_MS = (
    24 * 3600 * 1000
)  # a queue that is not durable and not renewed for a day leaves nothing behind

PURGED_AT_ONCE = 2_000  # messages: some 10 ms
KEPT_AT_ONCE = (
    1_200  # entries in flight of a stream that are moved: what a process fetches, in 50 ms
)
_BYTES_AT_ONCE = 1024 * 1024

# ARGV: queue, 1 to keep it, 1 if shared, its largest backlog, lease in ms, that in bytes
OPEN = Script(
    PRELUDE
    + MESSAGES
    + FOREIGN
    + MENDING
    + f"local LIVE = {_KEYS_LIVE_MS}\n"
    + """
expire()
local box, is_kept = ARGV[1], ARGV[2] == '1'
local score = call('ZSCORE', boxes, box)
call('SET', since, now, 'PX', LIVE, 'NX')
mend(box)
if not call('HGET', key('box', box), 'b') then recount(box) end
if score == 'inf' and not is_kept then return 0 end
call('HSET', key('box', box), 'shared', ARGV[3], 'max', ARGV[4], 'maxb', ARGV[6])
is_kept = is_kept or score == 'inf'
call('ZADD', boxes, is_kept and '+inf' or now + ARGV[5], box)
if is_kept then
  for _, one in ipairs(all_keys(box)) do call('PERSIST', one) end
  call('PERSIST', boxes)
end
return 1
"""
)

# ARGV: queues that the index may not have. Returns how keys of another type, which stood
# where ours belong, are called now.
MEND = Script(
    PRELUDE
    + MESSAGES
    + FOREIGN
    + MENDING
    + """
put_aside(boxes, 'ZCARD')
put_aside(gone, 'ZCARD')
put_aside(touched, 'STRLEN')
put_aside(since, 'STRLEN')
scrub_times()
local function mend_all(names)
  for _, box in ipairs(names) do
    put_aside_all(box)
    if exists(key('box', box)) then
      scrub(box)
      mend(box)
      scrub_counts(box)
    end
  end
end
mend_all(ARGV)
mend_all(call('ZRANGE', boxes, 0, -1))
return odd
"""
)

# ARGV: lease in ms, queues. Returns those that do not exist; each other one with how many messages
# wait in it; likewise those that others than pbus emptied; and since when there are queues.
TOUCH = Script(
    PRELUDE
    + MESSAGES
    + FOREIGN
    + MENDING
    + f"local LIVE = {_KEYS_LIVE_MS}\n"
    + """
expire()
if exists(boxes) then call('SET', touched, now, 'PX', LIVE) end
call('PEXPIRE', since, LIVE)
local missing, waiting, emptied = {}, {}, {}
local function is_emptied(box)
  if exists(key('later', box)) then return false end
  for _, queue in ipairs({'d', 's', 'D', 'S'}) do
    if call('XLEN', key('q:' .. queue, box)) > 0 then return false end
  end
  return true
end
for i = 2, #ARGV do
  local box = ARGV[i]
  local score, found = call('ZSCORE', boxes, box), call('HMGET', key('box', box), 'n', 'h', 'b', 'big', 'max', 'maxb')
  for i = 5, 6 do  -- then its owner opens it again
    if not (is_number(found[i]) and found[i] + 0 > 0) then found[1] = false end
  end
  local n, h, b = found[1], found[2] or 0, found[3] or 0
  if n and (n + 0 > 0 or b + 0 ~= 0) and n + 0 <= found[5] + BIGGEST and is_emptied(box) then
    if n + 0 > 0 then emptied[#emptied + 1], emptied[#emptied + 2] = box, n - h end
    recount(box)
    n, h = 0, 0
  elseif n and is_off(box, n + 0, (found[4] or 1) + 0) then
    recount(box)
    n, h = unpack(call('HMGET', key('box', box), 'n', 'h'))
  end
  if n then waiting[#waiting + 1], waiting[#waiting + 2] = box, n - h end
  if not score or not n then
    missing[#missing + 1] = box
  elseif score ~= 'inf' then
    call('ZADD', boxes, now + ARGV[1], box)
    for _, one in ipairs(all_keys(box)) do call('PEXPIRE', one, LIVE) end
  end
end
if call('ZCOUNT', boxes, '+inf', '+inf') == 0 then call('PEXPIRE', boxes, LIVE) end
return {missing, waiting, emptied, call('GET', since) or ''}
"""
)

# ARGV: prefixes of incarnations. Returns how many messages were given back.
REQUEUE = Script(
    PRELUDE
    + ALWAYS
    + MESSAGES
    + FOREIGN
    + SEEN
    + f"local GONE_MS = {FORGET_MS}\n"  # no command of a dead process is under way for so long
    + """
local given = 0
local function is_theirs(name)
  for _, prefix in ipairs(ARGV) do
    if string.sub(name, 1, #prefix) == prefix then return true end
  end
  return false
end
local function their_consumers(stream)
  local names = {}
  for _, fields in ipairs(call('XINFO', 'CONSUMERS', stream, 'g')) do
    for i = 1, #fields, 2 do
      if fields[i] == 'name' and is_theirs(fields[i + 1]) then names[#names + 1] = fields[i + 1] end
    end
  end
  return names
end
local function return_message(box, lane, message, has_started)
  message.suspect = 1
  if has_started then message.crashes = message.crashes + 1 end
  -- What killed its process more than once must not stand before all others.
  return store(box, message.crashes > 0 and lane or string.upper(lane), message)
end
local function return_entry(box, lane, queue, entry)
  local stream, part, slot = key('q:' .. queue, box), key('part', box), queue .. entry
  local changes, given_here = {n = 0, h = 0, r = 0, b = 0}, 0
  local found = call('XRANGE', stream, entry, entry)[1]
  if found and not ids_of(found[2]) then
    refuse(box, queue, entry, found[2])
    return 0
  end
  local messages = found and unfold(entry, found[2]) or {}
  local flags, has_started = call('HGET', part, slot), call('HGET', part, '!' .. slot) == '1'
  local ids = {}
  for i, message in ipairs(messages) do ids[i] = message.id end
  local hits = seen(box, ids) or {}
  for i, message in ipairs(messages) do
    if not flags or string.sub(flags, i, i) == '0' then
      changes.h = changes.h - 1
      if hits[i] then
        changes.n = changes.n - 1
        if message.attempt > 1 then changes.r = changes.r - 1 end
      else
        changes.b = changes.b + return_message(box, lane, message, has_started)
        given_here = given_here + 1
      end
    end
  end
  call('XACK', stream, 'g', entry)
  call('XDEL', stream, entry)
  if found then changes.b = changes.b - #found[2][4] end
  call('HDEL', part, slot, '!' .. slot)
  count(box, changes)
  return given_here
end
local function return_all(box, lane, queue)
  local stream, given_here = key('q:' .. queue, box), 0
  for _, name in ipairs(exists(stream) and their_consumers(stream) or {}) do
    repeat
      local pending = call('XPENDING', stream, 'g', '-', '+', 100, name)
      for _, item in ipairs(pending) do
        given_here = given_here + return_entry(box, lane, queue, item[1])
      end
    until #pending < 100
    call('XGROUP', 'DELCONSUMER', stream, 'g', name)
  end
  return given_here
end
local function wake_others(box, lane)
  local waiting = key('wait:' .. lane, box)
  for _, name in ipairs(call('ZRANGE', waiting, 0, -1)) do
    if is_theirs(name) then call('ZREM', waiting, name) end
  end
  -- All of them: the dead may have been woken for messages that they did not come to take.
  if call('XLEN', key('q:' .. lane, box)) + call('XLEN', key('q:' .. string.upper(lane), box)) > 0 then
    wake(box, lane, 1000000)
  end
end
for _, box in ipairs(call('ZRANGE', boxes, 0, -1)) do
  for _, lane in ipairs({'d', 's'}) do
    given = given + return_all(box, lane, string.upper(lane)) + return_all(box, lane, lane)
    wake_others(box, lane)
  end
end
if exists(boxes) then
  for _, prefix in ipairs(ARGV) do call('ZADD', gone, now, prefix) end
  call('ZREMRANGEBYSCORE', gone, '-inf', now - GONE_MS)
  call('PEXPIRE', gone, GONE_MS)
end
return given
"""
)

# Returns of each queue: name, stored, held, tried before, dead, age of the oldest in ms or -1, bytes,
# dead letters that fell.
REPORTS = Script(
    PRELUDE
    + MESSAGES
    + """
expire()
local function oldest(box)
  local first = now + 1
  for _, queue in ipairs({'d', 's', 'D', 'S'}) do
    local found = call('XRANGE', key('q:' .. queue, box), '-', '+', 'COUNT', 1)[1]
    if found then first = math.min(first, time_of(found[1], found[2])) end
  end
  local later = call('ZRANGE', key('later', box), 0, 0)[1]
  if later then first = math.min(first, cmsgpack.unpack(later)[2].time) end
  return first > now and -1 or now - first
end
local reports = {}
for i, box in ipairs(call('ZRANGE', boxes, 0, -1)) do
  local found = call('HMGET', key('box', box), 'n', 'h', 'r', 'b', 'df')
  reports[i] = {box, (found[1] or 0) + 0, (found[2] or 0) + 0, (found[3] or 0) + 0, call('XLEN', key('dead', box)),
    oldest(box), (found[4] or 0) + 0, (found[5] or 0) + 0}
end
return reports
"""
)

# ARGV: queue and entry of dead letters. Returns how many there were.
REVIVE = Script(
    PRELUDE
    + MESSAGES
    + FOREIGN
    + """
local revived = 0
for i = 1, #ARGV, 2 do
  local box, entry = ARGV[i], ARGV[i + 1]
  local found = call('XRANGE', key('dead', box), entry, entry)[1]
  local lane = found and #found[2] == 10 and string.match(found[2][8], '^[ds]$')
  if lane and ids_of({unpack(found[2], 1, 6)}) then
    local message = unfold(entry, found[2])[1]
    call('XDEL', key('dead', box), entry)
    call('SREM', key('done:0', box), message.id)
    call('SREM', key('done:1', box), message.id)
    message.attempt, message.crashes, message.suspect, message.time = 1, 0, 0, now
    count(box, {n = 1, b = store(box, lane, message), db = -size_of_dead(found[2])})
    wake(box, lane, 1)
    revived = revived + 1
  end
end
return revived
"""
)

# ARGV: queue and entry of dead letters. Returns how many there were.
DROP_DEAD = Script(
    PRELUDE
    + FOREIGN
    + """
local dropped = 0
for i = 1, #ARGV, 2 do
  local box, entry = ARGV[i], ARGV[i + 1]
  local found = call('XRANGE', key('dead', box), entry, entry)[1]
  if found then
    call('XDEL', key('dead', box), entry)
    count(box, {db = -size_of_dead(found[2])})
    dropped = dropped + 1
  end
end
return dropped
"""
)

# ARGV: queue, 1 to remove it, 1 to do so only if it is empty. Returns how many messages fell, or are in
# the way, and 1 if there are more to fall. What falls at once is bounded, since the server runs nothing else
# meanwhile. Where little is in flight, that is moved to new streams, and the server frees the old ones
# in the background: a million entries take no longer than a few. Else entries fall in slices, those
# after the last one in flight: no consumer holds them.
PURGE = Script(
    PRELUDE
    + ALWAYS
    + MESSAGES
    + FOREIGN
    + MENDING
    + f"local MESSAGES, BYTES, KEPT = {PURGED_AT_ONCE}, {_BYTES_AT_ONCE}, {KEPT_AT_ONCE}\n"
    + """
local box = ARGV[1]
local found = call('HMGET', key('box', box), 'n', 'h')
if not found[1] then return {0, 0} end
if ARGV[3] == '1' and found[1] + 0 > 0 then return {found[1] + 0, 0} end
if ARGV[2] == '1' then
  remove(box)
  return {found[1] - found[2], 0}
end
local QUEUES = {'d', 's', 'D', 'S'}
local function keep_only(stream, pending)
  local spare, ttl = boxes .. ':spare', call('PTTL', stream)
  call('UNLINK', spare)
  call('XGROUP', 'CREATE', spare, 'g', '0', 'MKSTREAM')
  for _, item in ipairs(pending) do
    local entry = call('XRANGE', stream, item[1], item[1])[1]
    if entry then
      call('XADD', spare, item[1], unpack(entry[2]))
      call('XREADGROUP', 'GROUP', 'g', item[2], 'COUNT', 1, 'STREAMS', spare, '>')
    end
  end
  call('UNLINK', stream)
  call('RENAME', spare, stream)
  if ttl > 0 then call('PEXPIRE', stream, ttl) end
end
local function purge_all()  -- returns how many fell, or nil where much is in flight
  local streams = {}
  for _, queue in ipairs(QUEUES) do
    local stream = key('q:' .. queue, box)
    if call('XLEN', stream) > 0 then
      if call('XPENDING', stream, 'g')[1] > KEPT then return nil end
      streams[stream] = call('XPENDING', stream, 'g', '-', '+', KEPT)
    end
  end
  for stream, pending in pairs(streams) do keep_only(stream, pending) end
  call('UNLINK', key('later', box))
  local counts = {n = 0, h = 0, r = 0, big = 1, b = 0}
  for _, queue in ipairs(QUEUES) do recount_queue(box, queue, counts) end
  for field, number in pairs(counts) do call('HSET', key('box', box), field, number) end
  return found[1] - counts.n
end
local all = purge_all()
if all then return {all, 0} end
local fell, tried, size, read = 0, 0, 0, 0
local function is_enough() return fell >= MESSAGES or read >= MESSAGES or size >= BYTES end
local function purge_some(stream, start)  -- returns whether that was all
  local items, entries = call('XRANGE', stream, start, '+', 'COUNT', 50), {}
  for i, item in ipairs(items) do
    local fields = item[2]
    if fields[1] == 'i' and fields[3] == 'b' and #fields == 4 then  -- nearly all
      fell, size = fell + 1, size + #fields[4]
    else
      local ids = ids_of(fields)  -- others' entries were never counted
      if ids then fell, size = fell + #ids, size + #fields[4] end
      if was_tried(fields) then tried = tried + 1 end
    end
    entries[i], read = item[1], read + 1
    if fell >= MESSAGES or read >= MESSAGES or size >= BYTES then break end
  end
  if #entries > 0 then call('XDEL', stream, unpack(entries)) end
  return #items < 50 and #entries == #items
end
local function purge_later()
  while not is_enough() do
    local members = call('ZRANGE', key('later', box), 0, 49)
    if #members == 0 then return true end
    call('ZREM', key('later', box), unpack(members))
    size, fell, tried = size + size_of_later(members), fell + #members, tried + #members
  end
end
local function purge_stream(queue)
  local stream = key('q:' .. queue, box)
  local held = call('XLEN', stream) > 0 and call('XPENDING', stream, 'g')
  local is_done = not held
  while not (is_done or is_enough()) do
    is_done = purge_some(stream, held[3] and '(' .. held[3] or '-')
  end
  return is_done
end
local is_more = not purge_later()
for _, queue in ipairs(QUEUES) do
  if not is_more then is_more = not purge_stream(queue) end
end
count(box, {n = -fell, r = -tried, b = -size})
return {fell, is_more and 1 or 0}
"""
)
