-- wrk's side of scripts/benchmarks/wrk.py. Arguments: method, namespaces, keys, bytes of a value,
-- an API key where one is needed, and a file for POST, which has a path and a body a line;
-- the method BARE asks for "/" only, STATES stores states and STATE reads them. Requests are made ahead, so that all cost wrk the same.

local requests = {}
local count = 0

function init(args)
    local method, namespaces, keys, bytes = args[1], tonumber(args[2]), tonumber(args[3]), args[4]
    if method == "BARE" then
        requests[1] = wrk.format("GET", "/")
        return
    end
    if args[5] and args[5] ~= "" then
        wrk.headers["Authorization"] = "Bearer " .. args[5]
    end
    local body
    if method == "PUT" then
        wrk.headers["Content-Type"] = "application/json"
        body = '{"value":"' .. string.rep("v", tonumber(bytes)) .. '"}'
    end
    if method == "STATE" or method == "STATES" then
        wrk.headers["Content-Type"] = "application/json"
        for n = 0, keys - 1 do
            if method == "STATE" then
                requests[#requests + 1] = wrk.format("GET", "/v1/state/ns0?session_id=s" .. n)
            else
                requests[#requests + 1] = wrk.format("POST", "/v1/state", nil, string.format(
                    '{"agent_id":"ns0","session_id":"s%d","data":{"v":"%s"}}',
                    n, string.rep("v", tonumber(bytes))))
            end
        end
        return
    end
    if method == "POST" then
        wrk.headers["Content-Type"] = "application/json"
        for line in io.lines(args[6]) do
            local path, given = line:match("^(%S+) (.*)$")
            requests[#requests + 1] = wrk.format(method, path, nil, given)
        end
        return
    end
    for n = 0, namespaces * keys - 1 do
        local path = "/memory/ns" .. (n % namespaces) .. "/k" .. math.floor(n / namespaces)
        requests[#requests + 1] = wrk.format(method, path, nil, body)
    end
end

function request()
    count = count + 1
    return requests[count % #requests + 1]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        'RESULT {"requests": %d, "seconds": %f, "p50_ms": %f, "p99_ms": %f, "errors": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
        latency:percentile(99) / 1e3,
        errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
