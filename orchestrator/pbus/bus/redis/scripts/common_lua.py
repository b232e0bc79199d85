"""Functions that the scripts of stored messages share.

Each call of the store is one script, so each is done as a whole or not at all.

Keys, after KEYS[1] ("boxes", a sorted set of the queues by the end of their lease; kept: inf):

    :box:M     hash: max, maxb, shared, big (messages of the largest entry), n (stored), b (bytes of
               their bodies; an entry's until it is gone as a whole), h (held), r (tried before);
               db (bytes of dead letters), df (how many of them fell); of the handled ids: g (which set), gn (how many), gt (since when)
    :q:d:M     stream of the data lane, :q:s:M of the system lane; :q:D:M and :q:S:M hold what comes
               before them: messages tried again or given back. One consumer group "g" each
    :part:M    hash: which messages of an entry are settled; "!" before it: a suspect has started
    :last:M    hash: the last number of each sender's stream, and when
    :done:0:M, :done:1:M  ids handled: one set is filled, the other forgotten as a whole
    :later:M   sorted set of messages to be tried again, by when
    :dead:M    stream of dead letters
    :wait:d:M, :wait:s:M  sorted sets of the holders that wait, the longest first
    :gone      sorted set of incarnations whose messages were given back
    :odd…      what others had put in the place of one of these keys, of another type
    :since     when the first queue of all was opened, or that of an emptied server
    :touched   when a process was last in touch: queues expire by it only while some are

An entry of one message has the fields i (its id), b (its body) and, if it was in a queue before,
m (attempt, crashes, suspect, time). One of several has h (MessagePack: ids, sizes), b (bodies, joined).
"""

import hashlib

from pbus.bus.queues.store import (
    BROKER_AWAY_S,
    COMING_BACK_S,
    DEAD_BYTES,
    DEAD_KEPT,
    HANDLED_KEPT_S,
    KEPT_UNTOUCHED_S,
)
from pbus.settings import MAX_BACKLOG, MAX_BACKLOG_BYTES

_BIGGEST = 10_000  # messages of an entry: a batch of 256 KiB has fewer
FORGET_MS = int(HANDLED_KEPT_S * 1000)

# Each function costs a script something, used or not.
BASE = """
if redis.replicate_commands then pcall(redis.replicate_commands) end
local call, boxes = redis.call, KEYS[1]
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local function key(kind, box) return boxes .. ':' .. kind .. ':' .. box end
local function wake(box, lane, count)
  local waiting = key('wait:' .. lane, box)
  while count > 0 do
    local holder = call('ZPOPMIN', waiting)[1]
    if not holder then return end
    local message = lane .. holder .. '\\n' .. box
    if call('PUBLISH', boxes .. ':wake:' .. holder, message) > 0 then count = count - 1 end
  end
end
"""

PRELUDE = (
    BASE + f"local AWAY, BACK = {int(BROKER_AWAY_S * 1000)}, {int(COMING_BACK_S * 1000)}\n"
    f"local UNTOUCHED = {int(KEPT_UNTOUCHED_S * 1000)}\n"
    """
local gone, touched, since = boxes .. ':gone', boxes .. ':touched', boxes .. ':since'
local function exists(name) return call('EXISTS', name) == 1 end
local function all_keys(box)
  local kinds = {'box', 'q:d', 'q:s', 'q:D', 'q:S', 'part', 'last', 'done:0', 'done:1', 'later',
    'dead', 'wait:d', 'wait:s'}
  for i, kind in ipairs(kinds) do kinds[i] = key(kind, box) end
  return kinds
end
local function remove(box)
  call('ZREM', boxes, box)
  call('UNLINK', unpack(all_keys(box)))
  if not exists(boxes) then call('DEL', gone, touched, since) end
end
local function expire()
  local late = call('ZRANGEBYSCORE', boxes, '-inf', now, 'WITHSCORES')
  local last = late[1] and call('GET', touched)
  local was_away = last and now - last > AWAY  -- from everyone
  for i = 1, #late, 2 do
    local box = late[i]
    if was_away then
      call('ZADD', boxes, now + BACK, box)
    elseif now - late[i + 1] > UNTOUCHED or (call('HGET', key('box', box), 'n') or 0) + 0 <= 0 then
      remove(box)
    end
  end
  if was_away then call('SET', touched, now, 'KEEPTTL') end
end
local function count(box, changes)
  for field, change in pairs(changes) do
    if change ~= 0 then call('HINCRBY', key('box', box), field, change) end
  end
end
"""
)

# A write that needs no memory, before all others: then a server that is out of memory lets a script
# pass that only moves messages or ends them.
ALWAYS = "call('ZREM', boxes, '')\n"

# Messages on their own: what was in a queue before and comes back to it.
MESSAGES = """
local function marks_of(entry, fields)
  local attempt, crashes, suspect, time = string.match(fields[6] or '', '^(%d+) (%d+) (%d+) (%d+)$')
  if attempt then return attempt, crashes, suspect, time end
  return 1, 0, 0, string.match(entry, '^%d+')
end
local function time_of(entry, fields)
  local _, _, _, time = marks_of(entry, fields)
  return time + 0
end
local function head_of(fields)
  if fields[1] == 'i' then return {fields[2]}, {#fields[4]} end
  return unpack(cmsgpack.unpack(fields[2]))
end
local function was_tried(fields) return fields[6] and string.sub(fields[6], 1, 2) ~= '1 ' end
local function unfold(entry, fields)
  local bodies = fields[4]
  local attempt, crashes, suspect, time = marks_of(entry, fields)
  local messages, at = {}, 1
  local ids, sizes = head_of(fields)
  for i, id in ipairs(ids) do
    local size = sizes[i]
    messages[i] = {id = id, body = string.sub(bodies, at, at + size - 1), attempt = attempt + 0,
      crashes = crashes + 0, suspect = suspect + 0, time = time + 0}
    at = at + size
  end
  return messages
end
local function fields_of(message)
  local marks = message.attempt .. ' ' .. message.crashes .. ' ' .. message.suspect .. ' ' .. message.time
  return 'i', message.id, 'b', message.body, 'm', marks
end
local function store(box, queue, message)  -- returns how many bytes
  call('XADD', key('q:' .. queue, box), '*', fields_of(message))
  return #message.body
end
local function size_of_later(members)
  local size = 0
  for _, member in ipairs(members) do size = size + #cmsgpack.unpack(member)[2].body end
  return size
end
"""

# Entries that others than pbus wrote: they become dead letters, with their fields as JSON.
FOREIGN = (
    f"local DEAD, DEAD_BYTES = {DEAD_KEPT}, {DEAD_BYTES}\n"
    """
local fallen = {}
local function size_of_dead(fields) return #(fields[4] or '') + #(fields[10] or '') end
local function dead_letter(box, ...)  -- the oldest fall, but not the only one
  local dead, hash, fell = key('dead', box), key('box', box), 0
  if call('XLEN', dead) == 0 then call('HSET', hash, 'db', 0) end
  call('XADD', dead, '*', ...)
  local bytes, many = call('HINCRBY', hash, 'db', size_of_dead({...})), call('XLEN', dead)
  while many > 1 and (bytes > DEAD_BYTES or many > DEAD) do
    local oldest = call('XRANGE', dead, '-', '+', 'COUNT', 1)[1]
    call('XDEL', dead, oldest[1])
    bytes = call('HINCRBY', hash, 'db', -size_of_dead(oldest[2]))
    many, fell = many - 1, fell + 1
  end
  if fell > 0 then
    call('HINCRBY', hash, 'df', fell)
    fallen[box] = (fallen[box] or 0) + fell
  end
end
local function ids_of(fields)  -- nil: it is none of ours
  if #fields ~= 4 and #fields ~= 6 or fields[3] ~= 'b' then return nil end
  if #fields == 6 and not (
    fields[5] == 'm' and #fields[6] < 64 and string.match(fields[6], '^%d+ %d+ [01] %d+$')) then
    return nil
  end
  if fields[1] == 'i' then return {fields[2]} end
  if fields[1] ~= 'h' then return nil end
  local is_read, head = pcall(cmsgpack.unpack, fields[2])
  if not is_read or type(head) ~= 'table' then return nil end
  local ids, sizes, total = head[1], head[2], 0
  if type(ids) ~= 'table' or type(sizes) ~= 'table' or #ids == 0 or #ids ~= #sizes then return nil end
  for i, id in ipairs(ids) do
    local size = sizes[i]
    if type(id) ~= 'string' or type(size) ~= 'number' or size < 0 or size % 1 ~= 0 then return nil end
    total = total + size
  end
  return total == #fields[4] and ids or nil
end
local function refuse(box, queue, entry, fields)
  local is_text, body = pcall(cjson.encode, fields)
  dead_letter(box, 'i', 'entry ' .. entry, 'b', is_text and body or '', 'm', '1 0 0 ' .. now, 'q', string.lower(queue),
    'w', 'not written by pbus: it has not the fields of an entry')
  call('XACK', key('q:' .. queue, box), 'g', entry)
  call('XDEL', key('q:' .. queue, box), entry)
  call('HDEL', key('part', box), queue .. entry, '!' .. queue .. entry)
end
"""
)

# What others than pbus took away from a queue: its groups, and with streams the truth of its counts; and
# keys of another type that stand where its own belong, and entries of a far time: they are renamed. What others wrote into keys of
# the right type, and scripts would stumble over, is removed (scrub).
MENDING = (
    "local DAY = 24 * 3600 * 1000\n"
    f"local MAX, MAX_BYTES, BIGGEST = {MAX_BACKLOG}, {MAX_BACKLOG_BYTES}, {_BIGGEST}\n"
    """
local SIZES = {box = 'HLEN', part = 'HLEN', last = 'HLEN', later = 'ZCARD', dead = 'XLEN',
  ['q:d'] = 'XLEN', ['q:s'] = 'XLEN', ['q:D'] = 'XLEN', ['q:S'] = 'XLEN',
  ['done:0'] = 'SCARD', ['done:1'] = 'SCARD', ['wait:d'] = 'ZCARD', ['wait:s'] = 'ZCARD'}
local odd = {}
local function put_aside(name, size)  -- size: a command that only keys of the right type answer
  local found = redis.pcall(size, name)
  if type(found) == 'table' and string.find(found.err or '', 'WRONGTYPE', 1, true) then
    odd[#odd + 1] = boxes .. ':odd' .. string.sub(name, #boxes + 1)
    call('RENAME', name, odd[#odd])
  end
end
local function put_aside_all(box)
  for kind, size in pairs(SIZES) do put_aside(key(kind, box), size) end
end
local function zeros(flags)
  local _, many = string.gsub(flags, '0', '')
  return many
end
local function recount_queue(box, queue, counts)
  local stream, start = key('q:' .. queue, box), '-'
  repeat
    local items = call('XRANGE', stream, start, '+', 'COUNT', 100)
    for _, item in ipairs(items) do
      local entry, fields = item[1], item[2]
      local flags, many = call('HGET', key('part', box), queue .. entry), #(ids_of(fields) or {})
      local left = flags and zeros(flags) or many
      counts.n, counts.big = counts.n + left, math.max(counts.big, many)
      if many > 0 then counts.b = counts.b + #fields[4] end
      if many > 0 and #call('XPENDING', stream, 'g', entry, entry, 1) > 0 then counts.h = counts.h + left end
      if many > 0 and was_tried(fields) then counts.r = counts.r + 1 end
      start = '(' .. entry
    end
  until #items < 100
end
local function size_of_all_dead(box)
  local size, start = 0, '-'
  repeat
    local items = call('XRANGE', key('dead', box), start, '+', 'COUNT', 100)
    for _, item in ipairs(items) do
      size, start = size + size_of_dead(item[2]), '(' .. item[1]
    end
  until #items < 100
  return size
end
local function recount(box)
  local later = call('ZCARD', key('later', box))
  local counts = {n = later, h = 0, r = later, big = 1, b = 0}
  for first = 0, later - 1, 100 do
    counts.b = counts.b + size_of_later(call('ZRANGE', key('later', box), first, first + 99))
  end
  for _, queue in ipairs({'d', 's', 'D', 'S'}) do recount_queue(box, queue, counts) end
  counts.db = size_of_all_dead(box)
  for field, number in pairs(counts) do call('HSET', key('box', box), field, number) end
end
local function is_number(text)  -- as the server counts: neither 007 nor -0
  return text == '0' or text and #text < 16 and string.match(text, '^-?[1-9]%d*$') ~= nil
end
local function is_off(box, n, big)  -- counted are more than there can be, or fewer
  local most = call('ZCARD', key('later', box))
  for _, queue in ipairs({'d', 's', 'D', 'S'}) do
    most = most + call('XLEN', key('q:' .. queue, box)) * math.max(1, math.min(big, BIGGEST))
  end
  return n < 0 or n > most
end
local function is_message(member)
  local is_read, found = pcall(cmsgpack.unpack, member)
  local message = is_read and type(found) == 'table' and found[2]
  if type(message) ~= 'table' or found[1] ~= 'd' and found[1] ~= 's' then return false end
  for _, name in ipairs({'attempt', 'crashes', 'suspect', 'time'}) do
    local number = message[name]
    if type(number) ~= 'number' or number % 1 ~= 0 or math.abs(number) > 1e15 then return false end
  end
  return type(message.id) == 'string' and type(message.body) == 'string'
end
local function scrub_counts(box)
  local name, is_wrong = key('box', box), false
  local found = call('HMGET', name, 'n', 'h', 'r', 'big', 'b', 'db')
  for i = 1, 6 do is_wrong = is_wrong or not is_number(found[i]) end
  for field, limit in pairs({max = MAX, maxb = MAX_BYTES}) do
    local at_most = call('HGET', name, field)
    if not is_number(at_most) or at_most + 0 < 1 then call('HSET', name, field, limit) end
  end
  for _, field in ipairs({'df', 'gn', 'gt'}) do
    if not is_number(call('HGET', name, field)) then call('HDEL', name, field) end
  end
  if is_wrong or is_off(box, found[1] + 0, found[4] + 0) then recount(box) end
end
local function scrub_fields(name, key_start, value_pattern)
  local found = call('HGETALL', name)
  for i = 1, #found, 2 do
    local is_ours = string.match(found[i], key_start) and #found[i + 1] < 100000
    if not (is_ours and string.match(found[i + 1], value_pattern)) then call('HDEL', name, found[i]) end
  end
end
local function scrub(box)
  scrub_fields(key('last', box), '', '^%d+ %d+$')
  scrub_fields(key('part', box), '^!?[dsDS]%d', '^[01]+$')
  for _, member in ipairs(call('ZRANGE', key('later', box), 0, -1)) do
    if not is_message(member) then call('ZREM', key('later', box), member) end
  end
end
local function scrub_times()
  for _, name in ipairs({touched, since}) do
    local at = call('GET', name)
    if at and not is_number(at) then call('DEL', name) end
  end
end
local function time_of_last(stream)
  local info = call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return string.match(info[i + 1], '^%d+') + 0 end
  end
end
local function bring_back(stream)  -- from a far time, which nothing can follow
  if not exists(stream) or time_of_last(stream) <= now + DAY then return end
  local old, start = boxes .. ':odd' .. string.sub(stream, #boxes + 1), '-'
  odd[#odd + 1] = old
  call('RENAME', stream, old)
  repeat
    local items = call('XRANGE', old, start, now + DAY, 'COUNT', 100)
    for _, item in ipairs(items) do
      call('XADD', stream, item[1], unpack(item[2]))
      call('XDEL', old, item[1])
      start = '(' .. item[1]
    end
  until #items < 100
end
local function mend(box)
  local is_mended = false
  for _, kind in ipairs({'q:d', 'q:s', 'q:D', 'q:S', 'dead'}) do bring_back(key(kind, box)) end
  for _, queue in ipairs({'d', 's', 'D', 'S'}) do
    local made = redis.pcall('XGROUP', 'CREATE', key('q:' .. queue, box), 'g', '0', 'MKSTREAM')
    if made.ok then is_mended = true end
  end
  if is_mended then recount(box) end
end
"""
)

# Which of these ids were handled before: a table by position, or nil.
SEEN = """
local done_keys = {}
local function seen(box, ids)
  if not done_keys[box] then
    done_keys[box] = {}
    for _, set in ipairs({key('done:0', box), key('done:1', box)}) do
      if exists(set) then table.insert(done_keys[box], set) end
    end
  end
  local hits
  for _, set in ipairs(done_keys[box]) do
    for first = 1, #ids, 1000 do
      local found = call('SMISMEMBER', set, unpack(ids, first, math.min(first + 999, #ids)))
      for i, is_member in ipairs(found) do
        if is_member == 1 then hits = hits or {}; hits[first + i - 1] = true end
      end
    end
  end
  return hits
end
"""


class Script:
    """A script and the name by which the server knows it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
