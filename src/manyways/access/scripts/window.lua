-- A window of `access.windows`, kept in one string: a head of numbers, then its log, each entry
-- a moment and an amount. What was promised is a list of its own: until when, how much, and how
-- much with all that was promised before; `redeemed` is as much of that as is gone.
--
-- Its clock is the server's, but never goes back: `offset` is what was added to make it so. A
-- window whose head has changed is `changed`, and has to be saved.

local HEAD = '<dddddddddd'
local HEAD_SIZE = 80
local ENTRY_SIZE = 16
local SLICES, SHORTEST_SLICE = 4096, 0.001
local PROMISES, GRACE = 1000, 1.0
local CHUNK = 64

local function entry(w, index)
    local at = HEAD_SIZE + index * ENTRY_SIZE
    local raw = redis.call('GETRANGE', w.key, at, at + ENTRY_SIZE - 1)
    local moment, amount = struct.unpack('<dd', raw)
    return moment, amount
end

local function put(w, index, moment, amount)
    redis.call('SETRANGE', w.key, HEAD_SIZE + index * ENTRY_SIZE, struct.pack('<dd', moment, amount))
end

-- Calls `see(index, moment, amount)` for each entry, oldest first, until it says to stop.
local function each(w, see)
    local index = w.first
    while index < w.count do
        local stop = math.min(w.count, index + CHUNK)
        local raw = redis.call(
            'GETRANGE', w.key, HEAD_SIZE + index * ENTRY_SIZE, HEAD_SIZE + stop * ENTRY_SIZE - 1)
        local at = 1
        while index < stop do
            local moment, amount
            moment, amount, at = struct.unpack('<dd', raw, at)
            if see(index, moment, amount) then return end
            index = index + 1
        end
    end
end

-- From now on the oldest entry is the first one that holds something; those that `gone` says
-- have left are none.
local function begin(w, gone)
    w.changed = true
    w.oldest = math.huge
    local first = w.count
    each(w, function(index, moment, amount)
        if amount == 0 or moment + w.length <= gone then
            w.used = w.used - amount
            return false
        end
        first, w.oldest = index, moment
        return true
    end)
    w.first = first
    if first == w.count then
        redis.call('DEL', w.key)
        w.dropped = w.dropped + w.count
        w.first, w.count, w.used = 0, 0, 0
    elseif first > CHUNK and first > w.count / 2 then
        local rest = redis.call('GETRANGE', w.key, HEAD_SIZE + first * ENTRY_SIZE, -1)
        redis.call('SET', w.key, string.rep('\0', HEAD_SIZE) .. rest)
        w.dropped = w.dropped + first
        w.first, w.count = 0, w.count - first
    end
end

local function window(key, promised, limit, length)
    local w = {key = key, promised = promised, limit = limit, length = length}
    w.width = math.max(length / SLICES, SHORTEST_SLICE)
    local head = redis.call('GETRANGE', key, 0, HEAD_SIZE - 1)
    if #head == HEAD_SIZE then
        w.first, w.count, w.dropped, w.closes, w.used, w.last, w.offset, w.promises, w.oldest,
            w.redeemed = struct.unpack(HEAD, head)
        w.changed = w.last > now + w.offset
        w.offset = math.max(w.offset, w.last - now)
        w.now = now + w.offset
        if w.oldest + length <= w.now then begin(w, w.now) end
    else
        -- Places are never used again, even if all was forgotten in between.
        w.first, w.count, w.dropped, w.closes, w.used = 0, 0, math.floor(now * 1000000), -math.huge, 0
        w.offset, w.promises, w.oldest, w.redeemed = 0, redis.call('LLEN', promised), math.huge, 0
        if w.promises > 0 then
            local _, amount, sum = struct.unpack('<ddd', redis.call('LINDEX', promised, 0))
            w.redeemed = sum - amount
        end
        w.now = now
    end
    return w
end

local function save(w)
    if not w.changed then return end
    local head = struct.pack(HEAD, w.first, w.count, w.dropped, w.closes, w.used, w.now, w.offset,
        w.promises, w.oldest, w.redeemed)
    redis.call('SETRANGE', w.key, 0, head)
    redis.call('PEXPIRE', w.key, math.ceil((w.length + 1) * 1000))
end

-- The promise at an index: until when, how much, the sum up to it.
local function promised_at(w, index)
    return struct.unpack('<ddd', redis.call('LINDEX', w.promised, index))
end

local function redeem(w)
    local raw = redis.call('LPOP', w.promised)
    w.promises, w.changed = w.promises - 1, true
    if raw then
        local _, _, sum = struct.unpack('<ddd', raw)
        w.redeemed = sum
    else
        w.promises = 0
    end
end

local function lapse(w)
    if w.promises > 0 and redis.call('LLEN', w.promised) ~= w.promises then
        w.promises, w.changed = redis.call('LLEN', w.promised), true
    end
    while w.promises > 0 and promised_at(w, 0) <= w.now do redeem(w) end
end

-- Let in; says where it was put. It redeems the oldest promise.
local function add(w, amount)
    if w.now < w.closes and w.count > w.first then
        local moment, had = entry(w, w.count - 1)
        if w.count - 1 == w.first then w.oldest = w.now end
        put(w, w.count - 1, w.now, had + amount)
    else
        if w.count == w.first then w.oldest = w.now end
        put(w, w.count, w.now, amount)
        w.closes = w.now + w.width
        w.count = w.count + 1
    end
    w.used = w.used + amount
    w.changed = true
    if w.promises > 0 then
        lapse(w)
        if w.promises > 0 then redeem(w) end
    end
    return w.dropped + w.count - 1
end

-- What was put there was more or less by so much.
local function correct(w, place, by)
    local index = place - w.dropped
    if index < w.first or index >= w.count then return end
    local moment, amount = entry(w, index)
    put(w, index, moment, amount + by)
    w.used = w.used + by
    w.changed = true
    if index == w.first and amount + by == 0 then begin(w, -math.huge) end
end

-- When so much of the log has left; nil where there is not so much.
local function left(w, surplus)
    if surplus > w.used then return end
    local when
    each(w, function(_, moment, amount)
        surplus = surplus - amount
        if surplus <= 0 then when = moment + w.length end
        return when
    end)
    return when
end

-- When so much of what was promised has left, of all of which there is more.
local function promises_left(w, surplus)
    local low, high = 0, w.promises - 1
    while low < high do
        local middle = math.floor((low + high) / 2)
        local _, _, sum = promised_at(w, middle)
        if sum - w.redeemed >= surplus then high = middle else low = middle + 1 end
    end
    return promised_at(w, low) + w.length
end

-- When `need` will surely have room, behind all that was promised.
local function opens(w, need)
    lapse(w)
    local when = left(w, w.used + need - w.limit)
    if w.promises == 0 then return when end
    local till, _, sum = promised_at(w, -1)
    if w.promises >= PROMISES then
        return math.max(when, till - math.max(GRACE, w.width))
    end
    local surplus = w.used + (sum - w.redeemed) + need - w.limit
    return math.max(when, left(w, surplus) or promises_left(w, surplus - w.used))
end

local function promise(w, moment, need)
    if w.promises < PROMISES then
        local till = moment + math.max(GRACE, w.width)
        local sum = w.redeemed
        if w.promises > 0 then sum = select(3, promised_at(w, -1)) end
        redis.call('RPUSH', w.promised, struct.pack('<ddd', till, need, sum + need))
        redis.call('PEXPIRE', w.promised, math.ceil((till - w.now + w.length + 1) * 1000))
        w.promises = w.promises + 1
        w.changed = true
    end
end
