-- What was used of a quota in its period, kept in a hash, and who has reserved how much of it: a
-- sorted set of `id:tokens:cost:start`, by when the node that holds it will have died.

local KEPT_BEHIND, KEPT_FOR_EVER, LOST = 86400, 30 * 86400, 86400

local function whole(number)
    return string.format('%.0f', number)
end

-- Nodes that died give back what their requests may have used at most. Its mark stays a while:
-- a node that was only slow then settles the whole.
local function sweep(m)
    local lost = redis.call('ZRANGEBYSCORE', m.held, '-inf', now, 'LIMIT', 0, 100)
    for _, member in ipairs(lost) do
        redis.call('ZREM', m.held, member)
        local tokens, cost, start = string.match(member, '^[^:]*:(%d+):(%d+):(%d+)$')
        if tokens then
            redis.call('ZADD', m.held, now + LOST, member .. ':lost')
            if tonumber(start) == m.start then
                m.tokens, m.cost = m.tokens - tokens, m.cost - cost
                m.changed = true
            end
        end
    end
end

-- `m.start` is nil where nobody knows what was used.
local function meter(key, held, per)
    local m = {key = key, held = held}
    local start, finish = period(per)
    local found = redis.call('HMGET', key, 'start', 'requests', 'tokens', 'cost')
    m.finish, m.begins = finish, start
    if not found[1] then return m end
    m.start, m.requests, m.tokens, m.cost =
        tonumber(found[1]), tonumber(found[2]), tonumber(found[3]), tonumber(found[4])
    if m.start < start then
        m.start, m.requests, m.tokens, m.cost, m.changed = start, 0, 0, 0, true
    end
    sweep(m)
    return m
end

local function record(m)
    if not m.changed then return end
    redis.call('HSET', m.key, 'start', whole(m.start), 'requests', whole(m.requests),
        'tokens', whole(m.tokens), 'cost', whole(m.cost))
    local seconds = KEPT_FOR_EVER
    if m.finish ~= math.huge then seconds = math.max(m.finish - now, 0) + KEPT_BEHIND end
    redis.call('PEXPIRE', m.key, math.ceil(seconds * 1000))
end
