"""The one script that Redis runs: a batch of takings and givings, each whole or not at all.

All times are Redis's own, in microseconds, so that it does not matter what the clocks of those who ask say. Numbers are kept out of
Lua's ``..``, which would round them.
"""

from __future__ import annotations

SCRIPT = """
local prefix = ARGV[1]
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- What is within a window that ends now; what has left it is forgotten. Of a window, ':e' has piece -> end, ':a' piece -> amount,
-- and '' -> their sum. A piece is called by when it began.
local function used(ends, amounts)
  local gone = redis.call('ZRANGEBYSCORE', ends, '-inf', now)
  if #gone > 0 then
    redis.call('ZREMRANGEBYSCORE', ends, '-inf', now)
    if redis.call('EXISTS', ends) == 0 then
      redis.call('DEL', amounts)
      return 0
    end
    local less = 0
    for first = 1, #gone, 500 do
      local last = math.min(first + 499, #gone)
      for _, amount in ipairs(redis.call('HMGET', amounts, unpack(gone, first, last))) do
        less = less + (tonumber(amount) or 0)
      end
      redis.call('HDEL', amounts, unpack(gone, first, last))
    end
    return redis.call('HINCRBY', amounts, '', -less)
  end
  return tonumber(redis.call('HGET', amounts, '') or 0)
end

-- Microseconds until so much has left a window; -1 for never.
local function wait_for(excess, ends, amounts)
  local start = 0
  while true do
    local pieces = redis.call('ZRANGE', ends, start, start + 99, 'WITHSCORES')
    if #pieces == 0 then return -1 end
    for index = 1, #pieces, 2 do
      excess = excess - (tonumber(redis.call('HGET', amounts, pieces[index])) or 0)
      if excess <= 0 then return math.max(tonumber(pieces[index + 1]) - now, 1) end
    end
    start = start + 100
  end
end

-- {'take', holder, states, uses, windows, places, keep}: all of it, or none and why.
local function take(op)
  local holder, states, uses, windows, places, keep = op[2], op[3], op[4], op[5], op[6], op[7]
  local names = {}
  for index, name in ipairs(states) do names[index] = prefix .. name end
  for index, value in ipairs(redis.call('MGET', unpack(names))) do
    if value then
      return {0, 'state', index - 1, redis.call('PTTL', names[index]) * 1000, value}
    end
  end
  local longest, which = 0, 0
  for index, window in ipairs(windows) do
    local ends, amounts = prefix .. window[1] .. ':e', prefix .. window[1] .. ':a'
    local excess = used(ends, amounts) + window[5] - window[2]
    if excess > 0 then
      local wait = wait_for(excess, ends, amounts)
      if wait < 0 then wait = window[3] end
      if wait > longest then longest, which = wait, index end
    end
  end
  if which > 0 then return {0, 'window', which - 1, longest, ''} end
  for index, place in ipairs(places) do
    local name = prefix .. place[1]
    redis.call('ZREMRANGEBYSCORE', name, '-inf', now)
    if redis.call('ZCARD', name) >= place[2] then return {0, 'place', index - 1, 0, ''} end
  end
  local pieces = {}
  for index, window in ipairs(windows) do
    local ends, amounts, span, amount = prefix .. window[1] .. ':e', prefix .. window[1] .. ':a', window[3], window[5]
    if amount > 0 then
      local last = redis.call('ZRANGE', ends, -1, -1, 'WITHSCORES')
      local piece, until_ = last[1], now + span
      if piece and now - tonumber(piece) < window[4] then
        until_ = math.max(until_, tonumber(last[2]))
      else
        piece = string.format('%.0f', now)
      end
      redis.call('HINCRBY', amounts, piece, amount)
      redis.call('HINCRBY', amounts, '', amount)
      redis.call('ZADD', ends, until_, piece)
      local life = math.ceil(span / 500)
      redis.call('PEXPIRE', ends, life)
      redis.call('PEXPIRE', amounts, life)
      pieces[index] = piece
    else
      pieces[index] = ''
    end
  end
  for _, place in ipairs(places) do
    redis.call('ZADD', prefix .. place[1], now + keep, holder)
    redis.call('PEXPIRE', prefix .. place[1], math.ceil(keep / 500))
  end
  local count = redis.call('INCR', prefix .. uses)
  redis.call('EXPIRE', prefix .. uses, 86400)
  return {1, now, count, pieces}
end

-- {'give', holder, {{window, piece, change, end or 0}, ...}, places}
local function give(op)
  for _, change in ipairs(op[3]) do
    local ends, amounts = prefix .. change[1] .. ':e', prefix .. change[1] .. ':a'
    local score = redis.call('ZSCORE', ends, change[2])
    if score then
      if change[3] ~= 0 then
        redis.call('HINCRBY', amounts, change[2], change[3])
        redis.call('HINCRBY', amounts, '', change[3])
      end
      if change[4] > tonumber(score) then redis.call('ZADD', ends, change[4], change[2]) end
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
    redis.call('PEXPIRE', prefix .. entry[1], math.ceil(op[3] / 500))
  end
  return 1
end

local replies = {}
for index, op in ipairs(cjson.decode(ARGV[2])) do
  local what = op[1]
  if what == 'take' then replies[index] = take(op)
  elseif what == 'give' then replies[index] = give(op)
  elseif what == 'set' then replies[index] = set(op)
  elseif what == 'keep' then replies[index] = keep(op)
  else replies[index] = redis.call('DEL', prefix .. op[2]) end
end
return replies
"""
