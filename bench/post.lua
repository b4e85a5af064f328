-- One request, again and again; its body comes from a file, the figures go out as one JSON line.
-- Where there is a file of keys, one a line, each request has the next of them.
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/json"

local secrets = {}
if os.getenv("BENCH_SECRETS") then
   for line in io.lines(os.getenv("BENCH_SECRETS")) do secrets[#secrets + 1] = line end
end

if #secrets > 0 then
   local before, after
   local turn = 0

   function init()
      wrk.headers["Authorization"] = "Bearer " .. secrets[1]
      local whole = wrk.format()
      local first, last = whole:find(secrets[1], 1, true)
      before, after = whole:sub(1, first - 1), whole:sub(last + 1)
   end

   function request()
      turn = turn % #secrets + 1
      return before .. secrets[turn] .. after
   end
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests":%d,"bytes":%d,"duration_us":%d,"refused":%d,"broken":%d,"late":%d,' ..
      '"p50_us":%d,"p90_us":%d,"p99_us":%d}\n',
      summary.requests, summary.bytes, summary.duration,
      errors.status, errors.connect + errors.read + errors.write, errors.timeout,
      latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
