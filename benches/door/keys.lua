-- Each request is of the next of 10,000 clients, as a proxy would name them.
local requests, n = {}, 0

function init()
    for i = 0, 9999 do
        local client = string.format("10.0.%d.%d", i / 100, i % 100)
        requests[i] = wrk.format("GET", "/", { ["X-Forwarded-For"] = client })
    end
end

function request()
    n = (n + 1) % 10000
    return requests[n]
end
