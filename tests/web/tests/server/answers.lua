-- Counts wrk's answers, and what is wrong with them: a refusal tells when to come again.
local threads = {}

function setup(thread)
    table.insert(threads, thread)
end

function init()
    admitted, refused, wrong = 0, 0, 0
end

function response(status, headers)
    local seconds = tonumber(headers["retry-after"])
    if status == 200 and headers["ratelimit"] and headers["ratelimit-policy"] and not seconds then
        admitted = admitted + 1
    elseif status == 429 and headers["ratelimit"] and seconds and seconds >= 1 and seconds % 1 == 0 then
        refused = refused + 1
    else
        wrong = wrong + 1
    end
end

function done()
    for _, name in ipairs({ "admitted", "refused", "wrong" }) do
        local sum = 0
        for _, thread in ipairs(threads) do
            sum = sum + thread:get(name)
        end
        print(string.format("answers %s: %d", name, sum))
    end
end
