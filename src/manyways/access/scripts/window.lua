-- A window of `access.windows`, kept in one string: a head of numbers, then its log, each entry
-- a moment and an amount. Of the crowd that was refused last the head says when it `began`, when it
-- `grew`, and how much it needs, which is `queued`.
--
-- Its clock is the server's, but never goes back: `offset` is what was added to make it so. A
-- window whose head has changed is `changed`, and has to be saved.

local HEAD = '<ddddddddddd'
local HEAD_SIZE = 88
local ENTRY_SIZE = 16
local SLICES, SHORTEST_SLICE = 4096, 0.001
local PAUSE, CROWD, GRACE = 0.5, 3.0, 1.0
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

local function window(key, limit, length)
    local w = {key = key, limit = limit, length = length}
    w.width = math.max(length / SLICES, SHORTEST_SLICE)
    local head = redis.call('GETRANGE', key, 0, HEAD_SIZE - 1)
    if #head == HEAD_SIZE then
        w.first, w.count, w.dropped, w.closes, w.used, w.last, w.offset, w.oldest, w.began, w.grew,
            w.queued = struct.unpack(HEAD, head)
        w.changed = w.last > now + w.offset
        w.offset = math.max(w.offset, w.last - now)
        w.now = now + w.offset
        if w.oldest + length <= w.now then begin(w, w.now) end
    else
        -- Places are never used again, even if all was forgotten in between.
        w.first, w.count, w.dropped, w.closes, w.used = 0, 0, math.floor(now * 1000000), -math.huge, 0
        w.offset, w.oldest, w.began, w.grew, w.queued = 0, math.huge, -math.huge, -math.huge, 0
        w.now = now
    end
    return w
end

local function save(w)
    if not w.changed then return end
    local head = struct.pack(HEAD, w.first, w.count, w.dropped, w.closes, w.used, w.now, w.offset,
        w.oldest, w.began, w.grew, w.queued)
    redis.call('SETRANGE', w.key, 0, head)
    redis.call('PEXPIRE', w.key, math.ceil((w.length + 1) * 1000))
end

-- Let in; says where it was put.
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

-- When so much of the log has left.
local function left(w, surplus)
    local when
    each(w, function(_, moment, amount)
        surplus = surplus - amount
        if surplus <= 0 then when = moment + w.length end
        return when
    end)
    return when
end

-- Whether who is refused now belongs to the latest crowd.
local function is_crowded(w)
    return w.now < w.grew + PAUSE and w.now < w.began + math.min(CROWD, w.length)
end

-- When `need` will surely have room, behind the crowd that was refused just now.
local function opens(w, need)
    local alone = w.used + need - w.limit
    if not is_crowded(w) then return left(w, alone) end
    local surplus = alone + w.queued
    local later = math.max(0, math.ceil((surplus - w.used) / w.limit))
    local behind = later * (w.length + 1 + math.max(GRACE, w.width))
    -- Sums of the largest amounts are not exact.
    local rest = math.min(math.max(surplus - later * w.limit, alone), w.used)
    return left(w, rest) + behind
end

-- Who needs so much was told what `opens` says.
local function enqueue(w, need)
    if not is_crowded(w) then
        w.began, w.queued = w.now, 0
    end
    w.grew, w.queued, w.changed = w.now, w.queued + need, true
end
