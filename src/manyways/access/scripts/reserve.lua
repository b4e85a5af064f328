-- Reserve from all limits, or from none.
--
-- ARGV: now or '', id, lease, tokens, cost, and of both what has to be there; then a row for each
-- limit:
--   requests|tokens, limit, length             KEYS: its window
--   running, limit                             KEYS: its slots, its crowd
--   quota, period, requests, tokens, cost      KEYS: its meter, who holds of it
--
-- Returns 'in', standing, and for each row what settling needs: a place, a place and an amount,
-- '', or a holding; or 'out', standing, the row in the way (from 0), what of it, used, wait; or
-- 'unknown', and for each row without a past: the row, when its period began.
-- A standing is three numbers, or three times -1.

local id, lease = ARGV[2], tonumber(ARGV[3])
local tokens, cost = tonumber(ARGV[4]), tonumber(ARGV[5])
local least_tokens, least_cost = tonumber(ARGV[6]), tonumber(ARGV[7])
local NEVER = 86400

local function whole_seconds(from, moment)
    local seconds = math.max(1, math.ceil(moment - from))
    return from + seconds >= moment and seconds or seconds + 1
end

local function barred(row)
    local w = row.window
    if w.used + row.need <= w.limit then return end
    return whole_seconds(w.now, opens(w, row.need)), row.kind, w.used
end

local function crowded(row)
    if row.used < row.limit then return end
    local second, refused = math.floor(now), 0
    local raw = redis.call('GET', row.crowd)
    if raw then
        local at, count = struct.unpack('<dd', raw)
        if at == second then refused = count end
    end
    redis.call('SET', row.crowd, struct.pack('<dd', second, refused + 1), 'PX', 2000)
    return 1 + math.min(math.floor(refused / row.limit), 4), 'requests', row.used
end

local function short(row)
    local m = row.meter
    local kind, used
    if m.requests >= row.requests then
        kind, used = 'requests', m.requests
    elseif m.tokens + least_tokens > row.tokens then
        kind, used = 'tokens', m.tokens
    elseif m.cost + least_cost > row.cost then
        kind, used = 'cost', m.cost
    else
        return
    end
    return m.finish == math.huge and NEVER or whole_seconds(now, m.finish), kind, used
end

local rows, unknown = {}, {'unknown'}
local k, a = 1, 8
while a <= #ARGV do
    local row = {kind = ARGV[a], limit = tonumber(ARGV[a + 1])}
    if row.kind == 'requests' or row.kind == 'tokens' then
        row.window = window(KEYS[k], row.limit, tonumber(ARGV[a + 2]))
        row.need = row.kind == 'requests' and 1 or math.min(tokens, row.limit)
        row.check = barred
        k, a = k + 1, a + 3
    elseif row.kind == 'running' then
        row.slots, row.crowd = KEYS[k], KEYS[k + 1]
        redis.call('ZREMRANGEBYSCORE', row.slots, '-inf', now)
        row.used = redis.call('ZCARD', row.slots)
        row.check = crowded
        k, a = k + 2, a + 2
    else
        row.meter = meter(KEYS[k], KEYS[k + 1], ARGV[a + 1])
        row.requests, row.tokens, row.cost =
            tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3]), tonumber(ARGV[a + 4])
        row.check = short
        if not row.meter.start then
            unknown[#unknown + 1] = #rows
            unknown[#unknown + 1] = row.meter.begins
        end
        k, a = k + 2, a + 5
    end
    rows[#rows + 1] = row
end

local function close()
    for _, row in ipairs(rows) do
        if row.window then save(row.window) end
        if row.meter and row.meter.start then record(row.meter) end
    end
end

if #unknown > 1 then
    close()
    return unknown
end

-- As the answer's headers tell it: of the limit of requests with the least left.
local function standing()
    local least
    for _, row in ipairs(rows) do
        local w = row.window
        if row.kind == 'requests' and (not least or w.limit - w.used < least.limit - least.used) then
            least = w
        end
    end
    if not least then return -1, -1, -1 end
    local reset = now
    if least.oldest ~= math.huge then reset = now + (least.oldest + least.length - least.now) end
    return least.limit, math.max(least.limit - least.used, 0), math.ceil(reset)
end

local longest, told = 0, nil
for number, row in ipairs(rows) do
    local wait, kind, used = row.check(row)
    if wait and wait > longest then
        longest, told = wait, {row = row, number = number - 1, kind = kind, used = used}
    end
end

if told then
    local w = told.row.window
    if w then enqueue(w, told.row.need) end
    close()
    local limit, remaining, reset = standing()
    return {'out', limit, remaining, reset, told.number, told.kind, whole(told.used), longest}
end

local taken = {}
for number, row in ipairs(rows) do
    if row.kind == 'requests' then
        taken[number] = add(row.window, 1)
    elseif row.kind == 'tokens' then
        taken[number] = whole(add(row.window, row.need)) .. ':' .. whole(row.need)
    elseif row.kind == 'running' then
        redis.call('ZADD', row.slots, now + lease, id)
        redis.call('PEXPIRE', row.slots, math.ceil((lease + 1) * 1000))
        taken[number] = ''
    else
        local m = row.meter
        local some = math.min(tokens, math.max(row.tokens - m.tokens, 0))
        local money = math.min(cost, math.max(row.cost - m.cost, 0))
        m.requests, m.tokens, m.cost = m.requests + 1, m.tokens + some, m.cost + money
        m.changed = true
        taken[number] = table.concat({id, whole(some), whole(money), whole(m.start)}, ':')
        redis.call('ZADD', m.held, now + lease, taken[number])
        redis.call('PEXPIRE', m.held, math.ceil((LOST + lease) * 1000))
    end
end
close()
return {'in', {standing()}, taken}
