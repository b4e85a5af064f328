-- What was reserved becomes what was used.
--
-- ARGV: now or '', id, counted, tokens, cost, again; then a row for each limit, as for reserving
-- without the numbers of quotas, each with what was taken behind it. KEYS as for reserving.
--
-- `again` is 1 where it may have been done before. Slots and quotas know that. Windows do not, so
-- they are left as they are: a little too strict, and not for long. It is 2 where nobody knows
-- whether anything was reserved: then what was taken is not said, and is looked for by the id. It
-- is 3 where it had to wait: its record may be among those that a quota was begun from.

local id, counted, tokens, cost = ARGV[2], ARGV[3] == '1', tonumber(ARGV[4]), tonumber(ARGV[5])
local again, doubted, at_once = ARGV[6] == '1' or ARGV[6] == '2', ARGV[6] == '2', ARGV[6] == '0'

local function correct_window(key, limit, length, place, by)
    if again or by == 0 then return end
    local w = window(key, limit, length)
    correct(w, place, by)
    save(w)
end

local function of_id(held)
    for _, member in ipairs(redis.call('ZRANGE', held, 0, -1)) do
        if string.sub(member, 1, #id + 1) == id .. ':' then return (string.gsub(member, ':lost$', '')) end
    end
    return ''
end

local function settle_meter(key, held, per, holding)
    if doubted then holding = of_id(held) end
    local some, money, start = string.match(holding, '^[^:]*:(%d+):(%d+):(%d+)$')
    local kept = redis.call('ZREM', held, holding) == 1
    local lost = not kept and redis.call('ZREM', held, holding .. ':lost') == 1
    -- Where neither is there, all was forgotten, and the meter begun anew without this request.
    local forgotten = not (kept or lost)
    if forgotten and not at_once then return end
    local m = meter(key, held, per)
    if m.start ~= tonumber(start) then return end
    if kept then
        m.tokens, m.cost = m.tokens - some, m.cost - money
    end
    m.tokens, m.cost = m.tokens + tokens, m.cost + cost
    if forgotten then m.requests = m.requests + 1 end
    if not counted then m.requests = m.requests - 1 end
    m.changed = true
    record(m)
end

local k, a = 1, 7
while a <= #ARGV do
    local kind = ARGV[a]
    if kind == 'requests' then
        correct_window(KEYS[k], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]),
            tonumber(ARGV[a + 3]), counted and 0 or -1)
        k, a = k + 1, a + 4
    elseif kind == 'tokens' then
        local place, reserved = string.match(ARGV[a + 3], '^(%d+):(%d+)$')
        correct_window(KEYS[k], tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]),
            tonumber(place), tokens - (reserved or 0))
        k, a = k + 1, a + 4
    elseif kind == 'running' then
        redis.call('ZREM', KEYS[k], id)
        k, a = k + 2, a + 2
    else
        settle_meter(KEYS[k], KEYS[k + 1], ARGV[a + 1], ARGV[a + 2])
        k, a = k + 2, a + 3
    end
end
