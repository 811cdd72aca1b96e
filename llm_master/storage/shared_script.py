"""The one script that Redis runs: a batch of takings and givings, each whole or not at all.

What is asked and what is replied is MessagePack. All times are Redis's own, in microseconds, so that it does not matter what the clocks of those who ask say. Numbers are kept out of
Lua's ``..``, which would round them.

A window is a hash: ``s`` is the sum of its log, whose pieces have the numbers from ``h`` to ``t``; of each, ``b`` is when it began,
``e`` when it leaves, ``a`` its amount. As ``dispatch/limits.py`` has it.
"""

from __future__ import annotations

SCRIPT = """
local prefix = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

local function field(letter, number) return letter .. string.format('%d', number) end

-- Load a window, and forget what has left it: its name, sum, first and last piece; when the last began and leaves, its amount.
local function load(name)
  -- Numbers go up by less than one in 100 microseconds, so that no piece is ever called what another was.
  local t = math.floor(now / 100)
  local w = {name = prefix .. name, s = 0, h = t + 1, t = t, b = 0, e = 0, a = 0}
  local head = redis.call('HMGET', w.name, 's', 'h', 't')
  if not (head[1] and head[2] and head[3]) then return w end
  w.s, w.h, w.t = tonumber(head[1]), tonumber(head[2]), tonumber(head[3])
  local ends = redis.call('HMGET', w.name, field('e', w.h), field('b', w.t), field('e', w.t), field('a', w.t))
  w.b, w.e, w.a = tonumber(ends[2] or 0), tonumber(ends[3] or 0), tonumber(ends[4] or 0)
  local first, gone = tonumber(ends[1] or 0), {}
  while w.h <= w.t and first <= now do
    w.s = w.s - tonumber(redis.call('HGET', w.name, field('a', w.h)) or 0)
    gone[#gone + 1], gone[#gone + 2], gone[#gone + 3] = field('a', w.h), field('b', w.h), field('e', w.h)
    w.h = w.h + 1
    if #gone > 900 then
      redis.call('HDEL', w.name, unpack(gone))
      gone = {}
    end
    if w.h <= w.t then first = tonumber(redis.call('HGET', w.name, field('e', w.h)) or 0) end
  end
  if w.h > w.t then
    w.s, w.h, w.t = 0, t + 1, t
    redis.call('DEL', w.name)
  elseif #gone > 0 then
    redis.call('HDEL', w.name, unpack(gone))
    redis.call('HSET', w.name, 's', w.s, 'h', w.h)
  end
  return w
end

-- Microseconds until so much has left a window; at most its length.
local function wait_for(excess, w, span)
  for piece = w.h, w.t do
    local found = redis.call('HMGET', w.name, field('a', piece), field('e', piece))
    excess = excess - tonumber(found[1] or 0)
    if excess <= 0 then return math.max(tonumber(found[2] or 0) - now, 1) end
  end
  return span
end

-- Write an amount into a window's log; the number of its piece.
local function write(w, amount, span, grain)
  local until_, changed, lives = now + span, {}, false
  if w.h <= w.t and now - w.b < grain then
    w.a, until_ = w.a + amount, math.max(until_, w.e)
  else
    -- It lives for four windows from here, and is written anew in each.
    lives = w.h > w.t or math.floor(w.b / span) ~= math.floor(now / span)
    w.t, w.a = w.t + 1, amount
    changed = {'h', w.h, 't', w.t, field('b', w.t), now}
  end
  redis.call('HSET', w.name, 's', w.s + amount, field('a', w.t), w.a, field('e', w.t), until_, unpack(changed))
  if lives then redis.call('PEXPIRE', w.name, math.ceil(span / 250)) end
  return w.t
end

-- {'take', holder, states, uses, {{window, limit, span, grain, amount}, ...}, {{place, limit}, ...}, keep}
local function take(op)
  local holder, states, windows, places, keep = op[2], op[3], op[5], op[6], op[7]
  local names = {}
  for index, name in ipairs(states) do names[index] = prefix .. name end
  for index, value in ipairs(redis.call('MGET', unpack(names))) do
    if value then return {0, 'state', index - 1, redis.call('PTTL', names[index]) * 1000, value} end
  end
  local longest, which, loaded = 0, 0, {}
  for index, window in ipairs(windows) do
    local w = load(window[1])
    loaded[index] = w
    local excess = w.s + window[5] - window[2]
    if excess > 0 then
      local wait = wait_for(excess, w, window[3])
      if wait > longest then longest, which = wait, index end
    end
  end
  if which > 0 then return {0, 'window', which - 1, longest, ''} end
  local inside = {}
  for index, place in ipairs(places) do
    local name = prefix .. place[1]
    inside[index] = redis.call('ZCARD', name)
    if inside[index] >= place[2] then
      redis.call('ZREMRANGEBYSCORE', name, '-inf', now)
      inside[index] = redis.call('ZCARD', name)
      if inside[index] >= place[2] then return {0, 'place', index - 1, 0, ''} end
    end
  end
  local pieces = {}
  for index, window in ipairs(windows) do pieces[index] = write(loaded[index], window[5], window[3], window[4]) end
  for index, place in ipairs(places) do
    redis.call('ZADD', prefix .. place[1], now + keep, holder)
    if inside[index] == 0 or now % 16 == 0 then redis.call('PEXPIRE', prefix .. place[1], 3600000) end
  end
  local uses = prefix .. op[4]
  local count = redis.call('INCR', uses)
  if count % 16 == 1 then redis.call('EXPIRE', uses, 86400) end
  return {1, now, count, pieces}
end

-- {'give', holder, {{window, piece, change, when it leaves or 0}, ...}, places}
local function give(op)
  for _, change in ipairs(op[3]) do
    local name, amount, ends = prefix .. change[1], field('a', change[2]), field('e', change[2])
    local found = redis.call('HMGET', name, amount, ends)
    -- What has left its window by now is over, also where no taking has yet come by to forget it.
    if found[1] and tonumber(found[2] or 0) > now then
      redis.call('HINCRBY', name, amount, change[3])
      redis.call('HINCRBY', name, 's', change[3])
      if change[4] > tonumber(found[2]) then redis.call('HSET', name, ends, change[4]) end
    end
  end
  for _, name in ipairs(op[4]) do redis.call('ZREM', prefix .. name, op[2]) end
  return 1
end

-- {'set', name, value, milliseconds}: a state that is there already stays if it lasts longer.
local function set(op)
  local name = prefix .. op[2]
  if redis.call('PTTL', name) < op[4] then redis.call('SET', name, op[3], 'PX', op[4]) end
  return 1
end

-- {'keep', {{place, holder}, ...}, microseconds}: they are still at it.
local function keep(op)
  for _, entry in ipairs(op[2]) do
    redis.call('ZADD', prefix .. entry[1], now + op[3], entry[2])
    redis.call('PEXPIRE', prefix .. entry[1], 3600000)
  end
  return 1
end

local replies = {}
for index, op in ipairs(cmsgpack.unpack(ARGV[2])) do
  local what = op[1]
  if what == 'take' then replies[index] = take(op)
  elseif what == 'give' then replies[index] = give(op)
  elseif what == 'set' then replies[index] = set(op)
  elseif what == 'keep' then replies[index] = keep(op)
  else replies[index] = redis.call('DEL', prefix .. op[2]) end
end
return cmsgpack.pack(replies)
"""
