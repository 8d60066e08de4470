#!/usr/bin/env bash
# Build the examples, run each, and check what it prints. One line an example; 1 if any is wrong.
set -euo pipefail

# A relative target directory is meant from where the caller stands.
if [[ -n ${CARGO_TARGET_DIR:-} ]]; then
    CARGO_TARGET_DIR=$(realpath -m "$CARGO_TARGET_DIR")
    export CARGO_TARGET_DIR
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

work=$(mktemp -d)
out=$work/out
stop() {
    # shellcheck disable=SC2046 # a word each
    kill $(jobs -pr) 2>/dev/null || true # what still runs in the background
    wait
    rm -rf "$work"
}
trap stop EXIT
failed=0
features='' # besides the default ones

# example NAME [ARGUMENT...]: its output, errors too, goes to $out; returns its exit code.
example() {
    timeout 60 cargo run --quiet --release --features "$features" --example "$1" -- "${@:2}" \
        >"$out" 2>&1
}

# verdict NAME SUMMARY [WRONG]: report; WRONG is what was expected and did not come.
verdict() {
    if [[ -z ${3:-} ]]; then
        echo "ok    $1: $2"
    else
        failed=1
        printf 'FAIL  %s: expected %s\n' "$1" "$3"
        sed 's/^/      | /' "$out"
    fi
}

# in_order PATTERN...: each matches a line below that of the one before; prints the first that
# does not.
in_order() {
    local at=0 line
    for pattern in "$@"; do
        line=$(tail -n +"$((at + 1))" "$out" | grep -nE -m 1 -- "$pattern" | cut -d : -f 1) || true
        if [[ -z $line ]]; then
            echo "a line like '$pattern' below line $at"
            return
        fi
        at=$((at + line))
    done
}

# rate_limiting [URL]: over NATS, if there is a URL.
rate_limiting() {
    local name="rate_limiting${1:+ over NATS}" wrong='' shown sum
    example rate_limiting "$@" || { verdict "$name" '' "exit code 0, not $?"; return; }
    # Every line, with what was measured put in letters.
    sed -E 's/in [0-9]+ms$/in Nms/; s/: [0-9]+\/50 succeeded, [0-9]+ failed/: X\/50 succeeded, Y failed/' \
        "$out" | diff - <(cat <<'LINES'
=== Rate Limiting Example ===

--- Part 1: MemoryLimiter (Local Rate Limiting) ---

Configured rate limits:
  openai-api: 5/5 available, 0 in-flight, window=1s
  database: 10/10 available, 0 in-flight, window=1s
  external-service: 3/3 available, 0 in-flight, window=1s

TryAcquire demo (non-blocking):
  ✓ Request 1: acquired token
  ✓ Request 2: acquired token
  ✓ Request 3: acquired token
  ✓ Request 4: acquired token
  ✓ Request 5: acquired token
  ✗ Request 6: rate limited (no token available)
  ✗ Request 7: rate limited (no token available)

Capacity after consuming tokens:
  openai-api: 0/5 available, 5 in-flight, window=1s

Releasing tokens...
Capacity after releasing 3 tokens:
  openai-api: 3/5 available, 2 in-flight, window=1s

Blocking Acquire demo (with timeout):
  ✓ Acquired token in Nms

Simulating 429 response - announcing reduced capacity:
  Before:
  external-service: 3/3 available, 0 in-flight, window=1s
  After (capacity reduced by 25%):
  external-service: 2/2 available, 0 in-flight, window=1s

Concurrent access pattern (5 workers, 10 requests each):
  Results: X/50 succeeded, Y failed (timeout)

--- Part 2: DistributedLimiter (Swarm Coordination) ---

Two agents sharing 'shared-api' rate limit (10/sec each):
  Agent-1: 10/10 available, 0 in-flight, window=1s
  Agent-2: 10/10 available, 0 in-flight, window=1s

Both agents making requests concurrently...
  Agent-1 successful requests: 8
  Agent-2 successful requests: 8

Agent-1 receives 429 response and announces reduced capacity...
  Before announcement:
    Agent-1: 10/10 available, 0 in-flight, window=1s
    Agent-2: 10/10 available, 0 in-flight, window=1s
  After announcement (both agents reduce capacity):
    Agent-1: 5/5 available, 0 in-flight, window=1s
    Agent-2: 5/5 available, 0 in-flight, window=1s

=== Example Complete ===
LINES
    ) || wrong='the lines marked > above, not those marked <'
    shown=$(grep Results "$out" | sed 's/^ *//') || true
    sum=$(sed -nE 's/.*Results: ([0-9]+)\/50 succeeded, ([0-9]+) failed.*/\1 + \2/p' "$out")
    ((${sum:-0} == 50)) || wrong=${wrong:-"counts that add up to 50"}
    verdict "$name" "$shown; agents at 10, then 5" "$wrong"
}

# A bus that is not to be had, or not there.
rate_limiting_refuses() {
    local code=0
    features='' example rate_limiting nats://127.0.0.1:1 || code=$?
    if ((code != 2)) || ! grep -q 'needs the feature `nats`' "$out"; then
        verdict 'rate_limiting without NATS' '' "the feature's name and exit code 2, not $code"
        return
    fi
    code=0
    features=nats example rate_limiting nats://127.0.0.1:1 || code=$?
    if ((code != 1)) || ! grep -q 'no NATS at nats://127.0.0.1:1' "$out"; then
        verdict 'rate_limiting without a server' '' "its address and exit code 1, not $code"
        return
    fi
    verdict 'rate_limiting, misused' 'exit codes 2 and 1'
}

worker_pool() {
    local wrong
    example worker_pool || { verdict worker_pool '' "exit code 0, not $?"; return; }
    wrong=$(in_order '^105 jobs, 4 workers' '^  worker 4: ' \
        '^105 of 105 jobs done in [0-9.]+ s' '^(9[0-9]\.[0-9]|100\.0) % of')
    verdict worker_pool "$(tail -n 1 "$out")" "$wrong"
}

multi_limit_models() {
    local wrong
    example multi_limit_models || { verdict multi_limit_models '' "exit code 0, not $?"; return; }
    wrong=$(in_order 'openai-gpt4: 20 admitted, 5 refused' 'refused; .* after [23]\.[0-9]s$' \
        'openai-gpt3: 25 admitted, 0 refused' 'embeddings: 25 admitted, 0 refused' \
        '150 texts: admitted' '150 texts: refused; .* after 37\.[0-9]s$' 'at most 200' \
        'embeddings: 2[56]/200 available, 0 in-flight' 'openai-gpt3: 3[56]/60' 'openai-gpt4: 0/20')
    verdict multi_limit_models 'admissions, refusals and what is left' "$wrong"
}

# Within each budget, with nearly all of it used: so what was too much came back, and what was too
# little was charged.
llm_budget() {
    local wrong
    example llm_budget || { verdict llm_budget '' "exit code 0, not $?"; return; }
    wrong=$(in_order '^32 tasks' 'llm/requests, window 250ms: ' 'llm/tokens, window 250ms: ' \
        'llm/tokens, window 60s: ' 'settling gave [1-9][0-9]* back and charged [1-9]' \
        '^  [1-9][0-9]* of these calls')
    if [[ -z $wrong ]]; then
        wrong=$(tail -n 1 "$out" | python3 -c '
import json, sys
try:
    found = json.loads(sys.stdin.read())
    good = found["calls"] > 200 and found["exceeded"] == 0 and 0.95 <= found["utilisation"] <= 1
    good = good and found["given_back"] > found["charged"] > 0
except (ValueError, KeyError, TypeError):
    good = False
if not good:
    print("JSON on the last line, with no budget exceeded and a utilisation of 0.95 to 1")
')
    fi
    verdict llm_budget "$(tail -n 1 "$out")" "$wrong"
}

api_client() {
    local wrong
    example api_client || { verdict api_client '' "exit code 0, not $?"; return; }
    wrong=$(in_order '^Without tollgate' '200, [1-9][0-9]* x 429' '^With tollgate' '200, 0 x 429')
    if [[ -z $wrong ]]; then
        wrong=$(tail -n 1 "$out" | python3 -c '
import json, sys
try:
    found = json.loads(sys.stdin.read())
    good = found["requests"] > 0 and found["status_429"] == 0 and 0.90 <= found["utilisation"] <= 1
except (ValueError, KeyError, TypeError):
    good = False
if not good:
    print("JSON on the last line, with no 429s and a utilisation of 0.90 to 1")
')
    fi
    verdict api_client "$(tail -n 1 "$out")" "$wrong"
}

# What Prometheus would see: 5 of each user's 9 requests, and all of these from the database.
prometheus() {
    local wrong
    features=web example prometheus || { verdict prometheus '' "exit code 0, not $?"; return; }
    wrong=$(for line in 'admitted_tokens_total{template="user:"} 4[0-9]' \
        'admitted_tokens_total{resource="database"} 4[0-9]' 'keys{template="user:"} 8' \
        'in_flight{resource="database"} 0' 'wait_seconds_count{resource="database"} [1-9]'; do
        grep -qE "^tollgate_$line" "$out" || echo "a line like '$line'"
    done)
    verdict prometheus "$(grep -c '^tollgate_' "$out") metrics of a resource and a template" "$wrong"
}

# Bad arguments: an error, the usage and exit code 2. A server that is not there: exit code 1.
api_client_refuses() {
    local code arguments
    for arguments in --bogus --rate '--rate 0' '--demand 0' '--seconds x' '--upstream https://localhost:1/' \
        '--upstream http://localhost/'; do
        code=0
        # shellcheck disable=SC2086 # split on purpose
        example api_client $arguments || code=$?
        if ((code != 2)) || ! grep -q '^usage: ' "$out"; then
            verdict "api_client $arguments" '' "the usage and exit code 2, not $code"
            return
        fi
    done
    code=0
    example api_client --upstream http://127.0.0.1:1/ --seconds 1 || code=$?
    if ((code != 1)) || ! tail -n 1 "$out" | grep -q '"status_429":0,"utilisation":0.000}$'; then
        verdict 'api_client without a server' '' "exit code 1, not $code, and a utilisation of 0"
        return
    fi
    verdict 'api_client, misused' 'exit codes 2 and 1'
}

# A server that is not ours, and allows half of what the client was told: it hears of that by 429s.
api_client_upstream() {
    local url server wrong
    python3 -u - >"$work/upstream" 2>&1 <<'SERVER' &
import http.server, threading, time

RATE, BURST = 25, 5
lock, tokens, last = threading.Lock(), BURST, time.monotonic()

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global tokens, last
        with lock:
            now = time.monotonic()
            tokens, last = min(BURST, tokens + (now - last) * RATE), now
            admitted = tokens >= 1
            tokens -= admitted
        self.send_response(200 if admitted else 429)
        if not admitted:
            self.send_header("Retry-After", "1")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_port}/")
server.serve_forever()
SERVER
    server=$!
    if url=$(soon grep -m 1 '^http' "$work/upstream"); then
        wrong=''
        example api_client --upstream "$url" --rate 50 --burst 10 --tasks 8 --seconds 3 ||
            wrong="exit code 0, not $?"
    else
        cp "$work/upstream" "$out"
        wrong='a server in Python'
    fi
    kill "$server" 2>/dev/null || true
    wait "$server" || true
    wrong=${wrong:-$(in_order 'the only phase')}
    wrong=${wrong:-$(tail -n 1 "$out" | python3 -c '
import json, sys
try:
    found = json.loads(sys.stdin.read())
    requests, refused = found["requests"], found["status_429"]
    good = 0 < refused < requests / 3 and 0 < found["utilisation"] < 0.5
except (ValueError, KeyError, TypeError):
    good = False
if not good:
    print("JSON on the last line, with some 429s, less than a third, and a utilisation below 0.5")
')}
    verdict 'api_client, upstream' "$(tail -n 1 "$out")" "$wrong"
}

# holds CONDITION: it holds for the JSON on the last line of $out; print it otherwise.
holds() {
    tail -n 1 "$out" | python3 -c '
import json, sys
try:
    good = eval(sys.argv[1], json.loads(sys.stdin.read()))
except (ValueError, NameError, TypeError):
    good = False
if not good:
    print("JSON on the last line, and " + sys.argv[1])
' "$1"
}

# llm_client WHAT CONDITION ARGUMENT...: the condition holds for a short run, also on a busy machine.
# scripts/deep.sh has the minute-long ones.
llm_client() {
    local wrong=''
    example llm_client --requests-per-minute 240 --tokens-per-minute 100000 --window 2 "${@:3}" ||
        wrong="exit code 0, not $?"
    verdict "llm_client, $1" "$(tail -n 1 "$out")" "${wrong:-$(holds "$2")}"
}

# Two clients of one provider, of which the second is given the address.
llm_client_upstream() {
    local wrong='' url first
    timeout 60 cargo run --quiet --release --features web --example llm_client -- --seconds 20 --tasks 5 \
        >"$work/provider" 2>&1 &
    first=$!
    if url=$(soon sed -nE 's/.* at (http:.*)\.$/\1/p' "$work/provider"); then
        example llm_client --upstream "$url" --seconds 3 --tasks 5 || wrong="exit code 0, not $?"
        wrong=${wrong:-$(holds 'requests > 0 and status_429 == 0 and 0 < utilisation < 1')}
    else
        cp "$work/provider" "$out"
        wrong='a provider that serves'
    fi
    kill "$first" 2>/dev/null || true
    wait "$first" || true
    verdict 'llm_client, upstream' "$(tail -n 1 "$out")" "$wrong"
}

# Bad arguments: an error, the usage and exit code 2. No upstream: exit code 1.
llm_client_refuses() {
    local code arguments
    for arguments in --bogus '--tasks 0' '--foreign 1' '--estimate-factor NaN' '--upstream x' \
        '--upstream http://127.0.0.1:1/ --foreign 0.1'; do
        code=0
        # shellcheck disable=SC2086 # split on purpose
        example llm_client $arguments || code=$?
        if ((code != 2)) || ! grep -q '^usage: ' "$out"; then
            verdict "llm_client $arguments" '' "the usage and exit code 2, not $code"
            return
        fi
    done
    code=0
    example llm_client --upstream http://127.0.0.1:1/ --seconds 1 || code=$?
    ((code == 1)) || { verdict 'llm_client without an upstream' '' "exit code 1, not $code"; return; }
    verdict 'llm_client, misused' 'exit codes 2 and 1'
}

# soon COMMAND...: it prints something, within 20 s; print that.
soon() {
    local said tries=0
    until said=$("$@" 2>/dev/null) && [[ -n $said ]]; do
        ((++tries < 200)) || return 1
        sleep 0.1
    done
    printf '%s\n' "$said"
}

# A server of our own, on a port that is free; its URL goes to $nats.
start_nats() {
    local server
    server=$(scripts/nats-server.sh)
    "$server" -a 127.0.0.1 -p -1 --ports_file_dir "$work" >"$work/nats.log" 2>&1 &
    nats=$(soon grep -rhoE --include='*.ports' 'nats:[^"]*' "$work") ||
        { cp "$work/nats.log" "$out"; verdict nats-server '' 'a server'; exit 1; }
}

# agent ID ARGUMENT...: it runs in the background; its output goes to $work/ID.
agent() {
    timeout 60 cargo run --quiet --release --features nats --example swarm_nats -- \
        --nats "$nats" --agent-id "$@" >"$work/$1" 2>&1 &
}

# Three agents: all end well, and who did not cut the limit heard of it.
swarm_nats() {
    local wrong='' url a b c
    agent a --serve 127.0.0.1:0 --seconds 50
    a=$!
    if url=$(soon sed -nE 's/.* to (http:.*)/\1/p' "$work/a"); then
        agent b --upstream "$url" --seconds 6
        b=$!
        agent c --upstream "$url" --seconds 6
        c=$!
        wait "$b" || wrong="exit code 0 of b, not $?"
        wait "$c" || wrong="exit code 0 of c, not $?"
        kill -INT "$a" # Ctrl-C, long before its time is over
        wait "$a" || wrong="exit code 0 of a, not $?"
    else
        wrong='an upstream that serves'
    fi
    cat "$work"/[abc] >"$out"
    wrong=${wrong:-$(grep '^{' "$out" | python3 -c '
import json, sys
try:
    a, b, c = agents = [json.loads(line) for line in sys.stdin]
    assert [agent["agent_id"] for agent in agents] == ["a", "b", "c"], "a, b and c"
    assert sum(agent["cuts_made"] for agent in agents) > 0, "a cut"
    assert all(agent["cuts_made"] + agent["cuts_heard"] > 0 for agent in agents), \
        "that all hear of a cut"
    requests = sum(agent["requests"] for agent in agents)
    refused = sum(agent["status_429"] for agent in agents)
    assert requests > 0 and 0 < refused / requests < 0.1, "some 429s, less than 10 %"
    assert a["requests"] < 20 * 40, "that Ctrl-C ends a before its time"
except AssertionError as expected:
    print(expected)
except (ValueError, KeyError, TypeError) as error:
    print(f"three lines of JSON: {error}")
')}
    verdict swarm_nats "$(grep -h '^{' "$work"/[abc] | paste -sd ' ')" "$wrong"
}

# Bad arguments: an error, the usage and exit code 2. No NATS, or no upstream: exit code 1.
swarm_nats_refuses() {
    local code arguments
    for arguments in '' --bogus '--serve' '--upstream x' '--share 0 --serve 127.0.0.1:0' \
        '--serve 127.0.0.1:0 --upstream http://127.0.0.1:1/'; do
        code=0
        # shellcheck disable=SC2086 # split on purpose
        example swarm_nats $arguments || code=$?
        if ((code != 2)) || ! grep -q '^usage: ' "$out"; then
            verdict "swarm_nats $arguments" '' "the usage and exit code 2, not $code"
            return
        fi
    done
    for arguments in '--nats nats://127.0.0.1:1' "--nats $nats"; do
        code=0
        # shellcheck disable=SC2086
        example swarm_nats --upstream http://127.0.0.1:1/ --seconds 1 $arguments || code=$?
        ((code == 1)) || { verdict "swarm_nats $arguments" '' "exit code 1, not $code"; return; }
    done
    verdict 'swarm_nats, misused' 'exit codes 2 and 1'
}

# From several addresses, in Python.
axum_server() {
    local wrong=''
    python3 scripts/check-axum-server.py "${CARGO_TARGET_DIR:-target}/release/examples/axum_server" >"$out" 2>&1 ||
        wrong='what the assertion says'
    verdict axum_server "$(tail -n 1 "$out")" "$wrong"
}

# Bad arguments: an error, the usage and exit code 2. An address that is not to be had: exit code 1.
axum_server_refuses() {
    local code arguments
    for arguments in --bogus --rate '--rate 0' '--listen x' '--trusted-proxies 10.0.0.0/33' '--grace 0'; do
        code=0
        # shellcheck disable=SC2086 # split on purpose
        example axum_server $arguments || code=$?
        if ((code != 2)) || ! grep -q '^usage: ' "$out"; then
            verdict "axum_server $arguments" '' "the usage and exit code 2, not $code"
            return
        fi
    done
    code=0
    example axum_server --listen 192.0.2.1:1 || code=$?
    if ((code != 1)) || ! grep -q 'cannot listen on 192.0.2.1:1' "$out"; then
        verdict 'axum_server without a port' '' "the address and exit code 1, not $code"
        return
    fi
    verdict 'axum_server, misused' 'exit codes 2 and 1'
}

# swarm_quota WHAT CONDITION ARGUMENT...: the condition holds for a short run. A busy machine may deliver requests
# together that were sent apart, so that some are refused. scripts/deep.sh allows none.
swarm_quota() {
    local wrong=''
    example swarm_quota --term 1 "${@:3}" || wrong="exit code 0, not $?"
    wrong=${wrong:-$(holds "$2")}
    verdict "swarm_quota, $1" "$(tail -n 1 "$out")" "$wrong"
}

# Bad arguments: an error, the usage and exit code 2. No NATS, or no upstream: exit code 1.
swarm_quota_refuses() {
    local code arguments
    for arguments in --bogus '--agents 0' '--burst 4' '--kill 9' '--upstream x'; do
        code=0
        # shellcheck disable=SC2086 # split on purpose
        example swarm_quota $arguments || code=$?
        if ((code != 2)) || ! grep -q '^usage: ' "$out"; then
            verdict "swarm_quota $arguments" '' "the usage and exit code 2, not $code"
            return
        fi
    done
    for arguments in '--nats nats://127.0.0.1:1' '--term 1 --upstream http://127.0.0.1:1/'; do
        code=0
        # shellcheck disable=SC2086
        example swarm_quota --seconds 1 $arguments || code=$?
        ((code == 1)) || { verdict "swarm_quota $arguments" '' "exit code 1, not $code"; return; }
    done
    verdict 'swarm_quota, misused' 'exit codes 2 and 1'
}

cargo build --quiet --release --examples
rate_limiting
worker_pool
multi_limit_models
llm_budget
api_client
api_client_upstream
api_client_refuses
cargo build --quiet --release --examples --features nats
rate_limiting_refuses
start_nats
features=nats
rate_limiting "$nats"
swarm_nats
swarm_nats_refuses
swarm_quota 'agents that come and go' 'status_429 <= admitted / 50 and utilisation > 0.4' \
    --kill 1 --join 1 --leave 1 --seconds 10 --chart "$work/quota.svg"
swarm_quota 'without a share' 'admitted > 0 and status_429 > admitted' --no-share --seconds 2
swarm_quota_refuses
cargo build --quiet --release --examples --features web
features=web
llm_client 'honest estimates' 'requests > 0 and status_429 == 0 and utilisation > 0.5' --seconds 6
llm_client 'estimates three times too high' 'status_429 < requests / 50 and utilisation > 0.3' \
    --estimate-factor 3 --seconds 6
llm_client 'estimates three times too low' 'status_429 < requests / 50 and utilisation > 0.5' \
    --estimate-factor 0.33 --seconds 6
# The bucket is empty after 4 s. Without feedback a quarter of the requests is refused from then on.
llm_client 'beside another client' '0 < requests and status_429 < requests / 20 and utilisation > 0.5' \
    --foreign 0.5 --seconds 8
llm_client_upstream
llm_client_refuses
prometheus
axum_server
axum_server_refuses
exit "$failed"
