"""The scripts that every message passes: put, take, settle."""

from pbus.bus.queues.store import CHANNEL_TIMES, HANDLED_KEPT, SMALL_PART
from pbus.bus.redis.scripts.common_lua import (
    ALWAYS,
    BASE,
    FOREIGN,
    FORGET_MS,
    MENDING,
    MESSAGES,
    PRELUDE,
    SEEN,
    Script,
)
from pbus.settings import MAX_BACKLOG_BYTES

_TAKE_BYTES = 4 * 1024 * 1024  # of bodies in one answer
_PUSHED_BYTES = 64 * 1024  # of a body that comes with the wake-up
_STAYS_AT_MOST = 16  # entries of a stream up to which a consumer waits on after a push
_STAYS_ROOM = 64  # messages that it has room for, if it is to wait on: more than come by pushes

# Parts of a ms in the time since which a consumer waits: from 0.25 it waits on after a push, from 0.5 it
# had one since it asked.
_WAITS_ON = "local STAY, GOT = 0.25, 0.5\n"

# Gives the only message that no process has yet to one that waits, with its wake-up. Returns how many
# are held by that, and whether it is the message in question. Where counts tell that it is the only
# one, stored is how many messages the queue holds.
PUSH = (
    f"local PUSHED, STAYS = {_PUSHED_BYTES}, {_STAYS_AT_MOST}\n"
    + _WAITS_ON
    + """
local function was_handled(box, id)
  local function has(name) return call('SMISMEMBER', key(name, box), id)[1] > 0 end
  return has('done:0') or has('done:1')
end
local function only_one(box, lane, stream)
  if call('XLEN', key('q:' .. string.upper(lane), box)) > 0 then return false end
  local there = call('XLEN', stream)
  return (there == 1 or there - call('XPENDING', stream, 'g')[1] == 1) and there
end
local function push(box, lane, entry, id, body, stored)
  local waiting, stream = key('wait:' .. lane, box), key('q:' .. lane, box)
  local holder, since_when, another = unpack(call('ZRANGE', waiting, 0, 1, 'WITHSCORES'))
  local channel = holder and boxes .. ':wake:' .. holder
  if not holder or #body > PUSHED or string.find(box .. id, '\\n', 1, true) then return 0, false end
  if call('PUBSUB', 'NUMSUB', channel)[2] ~= 1 or was_handled(box, id) then return 0, false end
  local there = stored or only_one(box, lane, stream)
  if not there then return 0, false end
  local reply = call('XREADGROUP', 'GROUP', 'g', holder, 'COUNT', 1, 'STREAMS', stream, '>')
  if not reply then return 0, false end
  if reply[1][2][1][1] ~= entry then return 1, false end  -- others removed some; a recovery finds it
  local stays = there <= STAYS and since_when % 1 >= STAY
  if not stays then
    call('ZREM', waiting, holder)
  elseif another or since_when % 1 < GOT then  -- the next goes to another
    call('ZADD', waiting, now + GOT + clock[2] % 1000 / 4000, holder)
  end
  local mark = stays and '+' or '!'
  call('PUBLISH', channel, table.concat({mark .. lane .. holder, box, entry, now, id, body}, '\\n'))
  return 1, true
end
"""
)

# ARGV: [[address, lane, stream of the sender, first, count], ...], then i (or h) and b of each.
# Returns for each into how many queues it was stored, or where it was refused -1, or what has no
# room: [n, b or c, queue, what is there, the limit]; -2 less the number where some may be missing,
# since the server was emptied only just now.
PUT = Script(
    PRELUDE
    + PUSH
    + "local FORGET, MOST, TIMES, PART = "
    + f"{FORGET_MS}, {MAX_BACKLOG_BYTES}, {CHANNEL_TIMES}, {SMALL_PART}\n"
    + """
expire()
local states, targets_of, results = {}, {}, {}
local refused, refused_all, refused_any = {d = {}, s = {}}, {}, {}
local function state(box)
  if states[box] == nil then
    local found = call('HMGET', key('box', box), 'max', 'n', 'big', 'shared', 'b', 'maxb')
    states[box] = found[1] and {box = box, max = found[1] + 0, n = found[2] + 0, big = found[3] + 0,
      is_shared = found[4] == '1', added = 0, bytes = (found[5] or 0) + 0,
      most = (found[6] or MOST) + 0, new = {d = 0, s = 0}, last = {}, moved = {}, single = {},
      streams = {d = key('q:d', box), s = key('q:s', box)}}
  end
  return states[box]
end
local function targets(address)
  local found = {}
  if address ~= '*' then
    found[1] = state(address) or nil
  else
    for _, box in ipairs(call('ZRANGE', boxes, 0, -1)) do
      local own = state(box)
      if own and not own.is_shared then found[#found + 1] = own end
    end
  end
  targets_of[address] = found
  return found
end
local function fresh_of(own, stream, first, many)
  local last = own.last[stream]
  if not last then
    last = call('HGET', key('last', own.box), stream)
    last = last and string.match(last, '^%d+') + 0 or 0
    own.last[stream] = last
  end
  return math.min(many, first + many - 1 - last)
end
local function tail(head, bodies, skipped)  -- only what has not been stored yet
  local ids, sizes = unpack(cmsgpack.unpack(head))
  for _ = 1, skipped do
    bodies = string.sub(bodies, sizes[1] + 1)
    table.remove(ids, 1)
    table.remove(sizes, 1)
  end
  return #ids == 1 and ids[1] or cmsgpack.pack({ids, sizes}), bodies
end
local channel_bytes
local function in_channel()
  if not channel_bytes then
    channel_bytes = 0
    for _, box in ipairs(call('ZRANGE', boxes, 0, -1)) do
      local own = states[box]
      channel_bytes = channel_bytes + (own and own.bytes or call('HGET', key('box', box), 'b') or 0)
    end
  end
  return channel_bytes
end
local function add(own, lane, fresh, head, bodies)
  local entry = call('XADD', own.streams[lane], '*', fresh == 1 and 'i' or 'h', head, 'b', bodies)
  own.single[lane] = fresh == 1 and {entry, head, bodies} or nil
  if own.n == 0 then own.big = 1 end
  if fresh > own.big then own.big = fresh end
  own.n, own.added, own.new[lane] = own.n + fresh, own.added + fresh, own.new[lane] + 1
  own.bytes, own.grown = own.bytes + #bodies, (own.grown or 0) + #bodies
  if channel_bytes then channel_bytes = channel_bytes + #bodies end
end
local function would_overtake(address, lane)
  return refused_all[lane] or refused[lane][address] or address == '*'
end
local function no_room(own, fresh, size, copies)
  if own.n == 0 then return nil end
  if own.n + fresh > own.max then return {'n', own.box, own.n, own.max} end
  if own.bytes + size > own.most then return {'b', own.box, own.bytes, own.most} end
  if own.bytes + size > own.most / PART and in_channel() + size * copies > own.most * TIMES then
    return {'c', own.box, in_channel(), own.most * TIMES}
  end
end
local function refusal(address, lane, stream, first, many, size, found)
  local is_missing, full = false, nil
  for _, own in ipairs(found) do
    local fresh = fresh_of(own, stream, first, many)
    if fresh > 0 then
      is_missing = true
      full = full or no_room(own, fresh, size, #found)
    end
  end
  if is_missing and not full and refused_any[lane] and would_overtake(address, lane) then return -1 end
  return full
end
local function put(i, address, lane, stream, first, many)
  local found = targets_of[address] or targets(address)
  local why = refusal(address, lane, stream, first, many, #ARGV[2 * i + 1], found)
  if why then
    refused[lane][address], refused_any[lane] = true, true
    if address == '*' then refused_all[lane] = true end
    return why
  end
  for _, own in ipairs(found) do
    local head, bodies, fresh = ARGV[2 * i], ARGV[2 * i + 1], fresh_of(own, stream, first, many)
    if fresh > 0 then
      if fresh < many then head, bodies = tail(head, bodies, many - fresh) end
      add(own, lane, fresh, head, bodies)
      own.last[stream] = first + many - 1
      own.moved[stream] = true
    end
  end
  return #found
end
local function is_young(address)  -- so that what is missing will be there again
  local from = call('GET', since)
  return not from or now - from < BACK or call('ZSCORE', boxes, address)
end
for i, spec in ipairs(cmsgpack.unpack(ARGV[1])) do
  results[i] = put(i, unpack(spec))
  local many = type(results[i]) == 'number' and results[i] or -1
  if (many == 0 or spec[1] == '*' and many > 0) and is_young(spec[1]) then
    results[i] = -2 - many
  end
end
local function forget_old(last)
  local old, known = {}, call('HGETALL', last)
  for i = 1, #known, 2 do
    if now - string.match(known[i + 1], '%d+$') > FORGET then old[#old + 1] = known[i] end
  end
  for _, stream in ipairs(old) do call('HDEL', last, stream) end
end
for box, own in pairs(states) do
  if own and own.added > 0 then
    call('HINCRBY', key('box', box), 'n', own.added)
    call('HINCRBY', key('box', box), 'b', own.grown)
    call('HSET', key('box', box), 'big', own.big)
    local last, is_new = key('last', box), false
    for stream in pairs(own.moved) do
      is_new = call('HSET', last, stream, own.last[stream] .. ' ' .. now) == 1 or is_new
    end
    if is_new and call('HLEN', last) % 64 == 0 then forget_old(last) end
    for lane, many in pairs(own.new) do
      local held, is_pushed = 0, false
      if many == 1 and own.single[lane] then held, is_pushed = push(box, lane, unpack(own.single[lane])) end
      count(box, {h = held})
      if not is_pushed then wake(box, lane, many) end
    end
  end
end
return results
"""
)

# What nearly every single message is: for one queue that has room, and the next of its stream. All
# else is left to PUT. ARGV: address, lane, stream of the sender, number, id, body. Returns 1, or nothing
# where nothing was stored.
PUT_ONE = Script(
    BASE
    + PUSH
    + f"local PART = {SMALL_PART}\n"
    + """
local box, lane, sender, number, id, body = unpack(ARGV)
local ends = call('ZSCORE', boxes, box)
if not ends or ends ~= 'inf' and ends + 0 <= now then return false end
local hash, last = key('box', box), key('last', box)
local max, n, big, b, maxb, h = unpack(call('HMGET', hash, 'max', 'n', 'big', 'b', 'maxb', 'h'))
if not (max and n and big and b and maxb and h) then return false end
local are_held, before = n == h, call('HGET', last, sender)
n, b = n + 1, b + #body
if n > max + 0 or b > maxb / PART then return false end
if not before or string.match(before, '^%d+') + 1 ~= number + 0 then return false end
local entry = call('XADD', key('q:' .. lane, box), '*', 'i', id, 'b', body)
call('HSET', last, sender, number .. ' ' .. now)
local held, is_pushed = push(box, lane, entry, id, body, are_held and n)
call('HSET', hash, 'n', n, 'b', b, 'big', n == 1 and 1 or big, 'h', h + held)
if not is_pushed then wake(box, lane, 1) end
return 1
"""
)

# ARGV: holder, [[[queue, lane, how many, 1 to recover, 2 where a message was pushed if the holder
# waits no longer, [entries known]], ...], 1 to wait,
# 1 if back after it was given up, [[queue, lane], ...] to wait for no longer when something is
# found, the same in any case]. Returns nothing when the holder was given up; else
# [[pair, stream, [[entry, fields], ...], [what is settled of each, ...]], ...], the ms until the
# next retry, or -1, and the server's time.
TAKE = Script(
    PRELUDE
    + ALWAYS
    + MESSAGES
    + FOREIGN
    + SEEN
    + f"local BYTES, ROOM = {_TAKE_BYTES}, {_STAYS_ROOM}\n"
    + _WAITS_ON
    + """
local holder, ask = ARGV[1], cmsgpack.unpack(ARGV[2])
local wanted, is_waiting, is_back, mine, stale = unpack(ask)
for _, prefix in ipairs(call('ZRANGE', gone, 0, -1)) do
  if string.sub(holder, 1, #prefix) == prefix then
    if is_back == 0 then return {} end
    call('ZREM', gone, prefix)
  end
end
local chunks, bytes, refused = {}, 0, {}
local function drop(box, queue, entry)
  local slot = queue .. entry
  call('XACK', key('q:' .. queue, box), 'g', entry)
  call('XDEL', key('q:' .. queue, box), entry)
  call('HDEL', key('part', box), slot, '!' .. slot)
end
local function zeros(flags)
  local _, many = string.gsub(flags, '0', '')
  return many
end
-- Marks what was handled before; returns what is settled, how many are left, how many were marked.
local function sift(box, queue, entry, fields, flags)
  local ids = head_of(fields)
  local old = flags and #flags == #ids and flags or string.rep('0', #ids)
  flags = old
  for i in pairs(seen(box, ids) or {}) do
    flags = string.sub(flags, 1, i - 1) .. '1' .. string.sub(flags, i + 1)
  end
  local left = zeros(flags)
  local marked = zeros(old) - left
  if marked > 0 then
    count(box, {n = -marked, r = was_tried(fields) and -marked or 0})
    if left > 0 then call('HSET', key('part', box), queue .. entry, flags) end
  end
  if left == 0 then
    drop(box, queue, entry)
    count(box, {b = -#fields[4]})
  end
  return flags, left, marked
end
local function sift_all(pair, queue, items)
  local box, kept, marks, got, left = wanted[pair][1], {}, {}, 0, 0
  for _, item in ipairs(items) do
    local flags
    flags, left = sift(box, queue, item[1], item[2], false)
    got = got + left
    if left > 0 then kept[#kept + 1] = item; marks[#marks + 1] = flags end
  end
  if #kept > 0 then chunks[#chunks + 1] = {pair, queue, kept, marks} end
  return got
end
local function refuse_foreign(pair, queue, item)
  local box = wanted[pair][1]
  refuse(box, queue, item[1], item[2])
  refused[#refused + 1] = box
end
local function without_foreign(pair, queue, items)
  local ours = {}
  for _, item in ipairs(items) do
    if ids_of(item[2]) then ours[#ours + 1] = item else refuse_foreign(pair, queue, item) end
  end
  return ours
end
local function hand_out(pair, queue, items)
  local ids, is_foreign = {}, false
  for _, item in ipairs(items) do
    local fields = item[2]
    if fields[1] == 'i' and fields[3] == 'b' and #fields == 4 then  -- nearly all
      bytes, ids[#ids + 1] = bytes + #fields[4], fields[2]
    else
      local its_ids = ids_of(fields)
      is_foreign = is_foreign or not its_ids
      if its_ids then bytes = bytes + #fields[4] end
      for _, id in ipairs(its_ids or {}) do ids[#ids + 1] = id end
    end
  end
  if is_foreign then items = without_foreign(pair, queue, items) end
  if #items == 0 then return 0 end
  if seen(wanted[pair][1], ids) then return sift_all(pair, queue, items) end
  chunks[#chunks + 1] = {pair, queue, items, {}}
  return #ids
end
local function promote(box)
  for _, member in ipairs(call('ZRANGEBYSCORE', key('later', box), '-inf', now, 'LIMIT', 0, 1000)) do
    local lane, message = unpack(cmsgpack.unpack(member))
    store(box, string.upper(lane), message)
    call('ZREM', key('later', box), member)
    wake(box, lane, 1)
  end
end
local function recover_entry(pair, queue, entry)
  local box = wanted[pair][1]
  local item = call('XRANGE', key('q:' .. queue, box), entry, entry)[1]
  if not item then return 0 end
  if not ids_of(item[2]) then
    refuse_foreign(pair, queue, item)
    return 0
  end
  local flags = call('HGET', key('part', box), queue .. entry)
  local left, marked
  flags, left, marked = sift(box, queue, entry, item[2], flags)
  count(box, {h = -marked})
  if left > 0 then chunks[#chunks + 1] = {pair, queue, {item}, {flags}} end
  return left
end
local function recover(pair, queue, known)
  local stream, got, start = key('q:' .. queue, wanted[pair][1]), 0, '-'
  if not exists(stream) then return 0 end
  repeat
    local pending = call('XPENDING', stream, 'g', start, '+', 100, holder)
    for _, item in ipairs(pending) do
      start = '(' .. item[1]
      if not known[queue .. item[1]] then got = got + recover_entry(pair, queue, item[1]) end
    end
  until #pending < 100
  return got
end
local function read(pair, queue, want, big)
  local box, got = wanted[pair][1], 0
  local stream = key('q:' .. queue, box)
  while got < want and bytes < BYTES and call('XLEN', stream) > 0 do
    local many = math.max(1, math.min(100, math.floor((want - got) / big)))
    local reply = call('XREADGROUP', 'GROUP', 'g', holder, 'COUNT', many, 'STREAMS', stream, '>')
    if not reply then break end
    local items = reply[1][2]
    got = got + hand_out(pair, queue, items)
    if #items < many then break end
  end
  count(box, {h = got})
  return got
end
local found, due = {}, -1
for pair, want in ipairs(wanted) do
  local box, lane, many, is_recovering, entries_known = unpack(want)
  local big = call('HGET', key('box', box), 'big')
  if big then
    if not found[box] then promote(box); found[box] = true end
    local since_when = is_recovering == 2 and call('ZSCORE', key('wait:' .. lane, box), holder)
    local is_pushed = is_recovering == 2 and (not since_when or since_when % 1 >= GOT)
    for _, queue in ipairs({string.upper(lane), lane}) do
      if is_recovering == 1 or is_pushed then
        local known = {}
        for _, entry in ipairs(entries_known) do known[entry] = true end
        many = many - recover(pair, queue, known)
      end
      many = many - read(pair, queue, many, big + 0)
    end
  end
end
local function stop_waiting(pairs_left)
  for _, pair in ipairs(pairs_left) do call('ZREM', key('wait:' .. pair[2], pair[1]), holder) end
end
local function wait(waiting, mark)  -- where it was, unless it begins, or waits in another way
  local since_when = call('ZSCORE', waiting, holder)
  if not since_when or since_when % 1 ~= mark then call('ZADD', waiting, now + mark, holder) end
end
stop_waiting(stale)
if #chunks > 0 or is_waiting == 0 then
  stop_waiting(mine)
else
  for _, want in ipairs(wanted) do
    local box, lane, many = unpack(want)
    if found[box] then wait(key('wait:' .. lane, box), many >= ROOM and STAY or 0) end
  end
  for box in pairs(found) do
    local at = call('ZRANGE', key('later', box), 0, 0, 'WITHSCORES')[2]
    if at and (due < 0 or at - now < due) then due = math.max(0, at - now) end
  end
end
return {chunks, due, now, refused}
"""
)

# ARGV: queue, stream, entry, of those that only their reader found to be none of ours
REFUSE = Script(
    PRELUDE
    + FOREIGN
    + """
for i = 1, #ARGV, 3 do
  local box, queue, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local found = call('XRANGE', key('q:' .. queue, box), entry, entry)[1]
  if found then
    count(box, {h = -#(ids_of(found[2]) or {})})
    refuse(box, queue, entry, found[2])
  end
end
return 0
"""
)

# ARGV: lane, queue: who was woken does not wait any longer, so another is.
PASS_ON = Script(PRELUDE + "wake(ARGV[2], ARGV[1], 1) return 0")

# ARGV: queue, stream, entry, of suspects whose handlers start now
STARTED = Script(
    PRELUDE
    + """
for i = 1, #ARGV, 3 do
  local box, queue, entry = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local stream = key('q:' .. queue, box)
  if exists(stream) and #call('XPENDING', stream, 'g', entry, entry, 1) == 1 then
    call('HSET', key('part', box), '!' .. queue .. entry, 1)
  end
end
return 0
"""
)

# ARGV: [[queue, stream, entry, its messages, 1 if tried before, [which are handled], [their ids],
# [[which, how, delay in ms, reason], ...], its bytes], ...], and what most are, entries of one message
# that was handled and has no past: [[queue, stream, [entries], [ids], [bytes of each]], ...].
# Returns 1 for each of the first that is not held any longer, else 0; and queues, and how many of
# their dead letters fell.
SETTLE = Script(
    PRELUDE
    + ALWAYS
    + MESSAGES
    + FOREIGN
    + MENDING
    + f"local KEPT, KEPT_MS = {HANDLED_KEPT}, {FORGET_MS}\n"
    + """
local states = {}
local function state(box)
  if states[box] == nil then
    states[box] = exists(key('box', box)) and {changes = {n = 0, h = 0, r = 0, b = 0},
      handled = {}, new = {d = 0, s = 0}}
  end
  return states[box]
end
local function handled(own, ids)
  for _, id in ipairs(ids) do own.handled[#own.handled + 1] = id end
end
local function gone_for_good(own, many, was_tried)
  own.changes.n = own.changes.n - many
  if was_tried then own.changes.r = own.changes.r - many end
end
local function put_back(box, own, slot, message, other)
  own.changes.b = own.changes.b + #message.body
  local at, how, delay = unpack(other)
  local lane = string.lower(string.sub(slot, 1, 1))
  if how == 'retry' then
    message.attempt = message.attempt + 1
    if message.attempt == 2 then own.changes.r = own.changes.r + 1 end
  end
  if delay > 0 then
    local member = cmsgpack.pack({lane, message, slot .. '/' .. at})  -- no two are the same
    call('ZADD', key('later', box), now + delay, member)
  else
    store(box, string.upper(lane), message)
    own.new[lane] = own.new[lane] + 1
  end
end
local function give_up(box, own, slot, message, other)
  local i, id, b, body, m, marks = fields_of(message)
  dead_letter(box, i, id, b, body, m, marks, 'q', string.lower(string.sub(slot, 1, 1)), 'w', other[4])
  gone_for_good(own, 1, message.attempt > 1)
end
local function is_held(stream, entry)
  return exists(stream) and #call('XPENDING', stream, 'g', entry, entry, 1) == 1
end
-- Marks what was open among these as settled; returns the flags, and a table of what was open.
local function mark(own, flags, which, others)
  local chosen, opened, at = {}, {}, -1
  for _, one in ipairs(which) do chosen[one] = true end
  for _, other in ipairs(others) do chosen[other[1]] = true end
  flags = string.gsub(flags, '.', function(flag)
    at = at + 1
    if flag ~= '0' or not chosen[at] then return nil end
    opened[at] = true
    own.changes.h = own.changes.h - 1
    return '1'
  end)
  return flags, opened
end
local function settle_messages(box, own, group, flags)
  local _, queue, entry, _, was_tried, which, _, others = unpack(group)
  local messages
  if #others > 0 then
    local found = call('XRANGE', key('q:' .. queue, box), entry, entry)[1]
    if not found then return '' end  -- removed by another
    messages = unfold(entry, found[2])
  end
  local opened
  flags, opened = mark(own, flags, which, others)
  for _, at in ipairs(which) do
    if opened[at] then gone_for_good(own, 1, was_tried == 1) end
  end
  for _, other in ipairs(others) do
    if opened[other[1]] then
      local send_off = other[2] == 'dead_letter' and give_up or put_back
      send_off(box, own, queue .. entry, messages[other[1] + 1], other)
    end
  end
  return flags
end
local function settle(box, own, group)
  local _, queue, entry, many, was_tried, which = unpack(group)
  local stream, part, slot = key('q:' .. queue, box), key('part', box), queue .. entry
  local flags = call('HGET', part, slot)
  if not flags and not is_held(stream, entry) then return 1 end
  if not flags and #which == many then
    gone_for_good(own, many, was_tried == 1)
    own.changes.h = own.changes.h - many
  else
    flags = settle_messages(box, own, group, flags or string.rep('0', many))
    if string.find(flags, '0', 1, true) then
      call('HSET', part, slot, flags)
      return 0
    end
  end
  call('XACK', stream, 'g', entry)
  if call('XDEL', stream, entry) == 1 then own.changes.b = own.changes.b - group[9] end
  call('HDEL', part, slot, '!' .. slot)
  return 1
end
local function drop_each(own, stream, entries, sizes, first, last)
  local many = 0
  for i = first, last do
    if call('XDEL', stream, entries[i]) == 1 then
      many, own.changes.b = many + 1, own.changes.b - sizes[i]
    end
  end
  return many
end
local function drop_all(own, stream, entries, sizes, first, last)
  local many = call('XDEL', stream, unpack(entries, first, last))
  for i = first, last do own.changes.b = own.changes.b - sizes[i] end
  if many < last - first + 1 then own.is_odd = true end  -- others removed some
  return many
end
local function settle_many(box, own, queue, entries, sizes)
  local stream = key('q:' .. queue, box)
  for first = 1, #entries, 1000 do
    local last = math.min(first + 999, #entries)
    local held = call('XACK', stream, 'g', unpack(entries, first, last))
    local drop = held == last - first + 1 and drop_all or drop_each  -- others: settled before
    gone_for_good(own, drop(own, stream, entries, sizes, first, last), false)
    own.changes.h = own.changes.h - held
  end
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
  local own = state(group[1])
  closed[i] = 1
  if own then
    handled(own, group[7])
    closed[i] = settle(group[1], own, group)
  end
end
for _, group in ipairs(cmsgpack.unpack(ARGV[2])) do
  local own = state(group[1])
  if own then
    handled(own, group[4])
    settle_many(group[1], own, group[2], group[3], group[5])
  end
end
for box, own in pairs(states) do
  if own then
    count(box, own.changes)
    if own.is_odd then recount(box) end
    if #own.handled > 0 then remember(box, own.handled) end
    for lane, many in pairs(own.new) do wake(box, lane, many) end
  end
end
local fell = {}
for box, many in pairs(fallen) do fell[#fell + 1], fell[#fell + 2] = box, many end
return {closed, fell}
"""
)
