-- What the records say was used of a quota, unless somebody else has told it before.
--
-- ARGV: now or '', period, start, requests, tokens, cost. KEYS: its meter.

local start, finish = period(ARGV[2])
if redis.call('EXISTS', KEYS[1]) == 0 and start == tonumber(ARGV[3]) then
    record({key = KEYS[1], start = start, finish = finish, requests = tonumber(ARGV[4]),
        tokens = tonumber(ARGV[5]), cost = tonumber(ARGV[6]), changed = true})
end
