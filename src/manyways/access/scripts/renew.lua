-- A request still runs: nobody else may have its slots, nor what it has reserved of quotas.
--
-- ARGV: now or '', lease, then for each of KEYS a kind and a member. Slots that were lost are
-- taken again, as the request does run; what was reserved of a quota is settled then.

local lease = tonumber(ARGV[2])
for number, key in ipairs(KEYS) do
    local kind, member = ARGV[1 + 2 * number], ARGV[2 + 2 * number]
    if kind == 'running' then
        redis.call('ZADD', key, now + lease, member)
        redis.call('PEXPIRE', key, math.ceil((lease + 1) * 1000))
    else
        redis.call('ZADD', key, 'XX', now + lease, member)
    end
end
