-- The server's time, in Unix seconds, so that no other clock matters. Tests say theirs.

local now = tonumber(ARGV[1])
if not now then
    local time = redis.call('TIME')
    now = time[1] + time[2] / 1000000
end

local MONTHS = {31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31}

-- The first second of the calendar day or month, UTC, and the first one behind it.
local function period(per)
    if per == 'ever' then return 0, math.huge end
    local day = math.floor(now / 86400)
    if per == 'day' then return day * 86400, (day + 1) * 86400 end
    -- Years that begin with March end with the day that leaps.
    local days = day + 719468
    local era = math.floor(days / 146097)
    local of_era = days - era * 146097
    local year = math.floor((of_era - math.floor(of_era / 1460) + math.floor(of_era / 36524)
        - math.floor(of_era / 146096)) / 365)
    local of_year = of_era - (365 * year + math.floor(year / 4) - math.floor(year / 100))
    local first, month = 0, 1
    while month <= 11 and of_year >= first + MONTHS[month] do
        first, month = first + MONTHS[month], month + 1
    end
    local length = MONTHS[month]
    if not length then
        local following = year + 1  -- whose February it is
        local leaps = following % 4 == 0 and (following % 100 ~= 0 or following % 400 == 0)
        length = leaps and 29 or 28
    end
    local start = (day - of_year + first) * 86400
    return start, start + length * 86400
end
