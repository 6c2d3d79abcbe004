-- Carts for wrk: `wrk ... -s carts.lua URL -- METHOD PATH HEADERS` asks for the cart of somebody else each time.
--
-- HEADERS is a file with one line `Name: value` for each shopper, which is all that tells one from another. Requests are written
-- once, before the clock starts, so that the load generator takes as little of the machine as can be.

local SKUS = 4
local requests = {}

function init(arguments)
    local method, path, headers = arguments[1], arguments[2], arguments[3]
    for line in io.lines(headers) do
        local name, value = line:match("^(%S+): (.*)$")
        local sent, body = { [name] = value }, nil
        if method == "POST" then
            sent["Content-Type"] = "application/json"
            body = string.format('{"sku":"SKU-%d","quantity":1}', #requests % SKUS)
        end
        requests[#requests + 1] = wrk.format(method, path, sent, body)
    end
    math.randomseed(os.time())
end

function request()
    return requests[math.random(#requests)]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        '{"requests": %d, "seconds": %.3f, "p50_us": %d, "p99_us": %d, "errors": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
        errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
