-- One request, again and again; its body comes from a file, the figures go out as one JSON line.
local file = assert(io.open(os.getenv("BENCH_BODY"), "rb"))
wrk.method = "POST"
wrk.body = file:read("*a")
file:close()
wrk.headers["Content-Type"] = "application/json"

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"requests":%d,"bytes":%d,"duration_us":%d,"refused":%d,"broken":%d,"late":%d,' ..
      '"p50_us":%d,"p90_us":%d,"p99_us":%d}\n',
      summary.requests, summary.bytes, summary.duration,
      errors.status, errors.connect + errors.read + errors.write, errors.timeout,
      latency:percentile(50), latency:percentile(90), latency:percentile(99)))
end
