-- GET the paths of a file, one a line, in turn; the figures go out as one JSON line.
local requests = {}
local turn = 0

function init()
   for path in io.lines(os.getenv("BENCH_PATHS")) do
      requests[#requests + 1] = wrk.format("GET", path)
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
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
