#!/usr/bin/env bash
# The checks that take hours, or tools that few machines have. scripts/test.sh has the others.
#
#     scripts/deep.sh                 # all sections
#     scripts/deep.sh seeds nginx     # these
#
#   seeds    every test in release: TOLLGATE_CASES (50) times the random cases, and
#            TOLLGATE_SWARM_SEEDS (100000) simulated swarms
#   loom     each model with up to LOOM_MAX_PREEMPTIONS (4) preemptions, for at most
#            TOLLGATE_LOOM_SECONDS (600) each
#   faults   each fault of loom-tests/faults.toml, which its model must catch
#   swarm    ten agents over NATS, and an upstream that allows a third of what they want, in real time;
#            the ledger on a cluster of three whose leader dies
#   quota    agents that share a quota, on servers that come and go, in real time; the swarm_quota example for a
#            minute each, with an upstream of its own and with nginx
#   nginx    the api_client example behind a real server that limits, in real time
#   door     a server with the layer under wrk for a minute, and its throughput beside tower_governor's
#   llm      the llm_client example for a minute each: honest and wrong estimates, and another client
#   fuzz     each target of fuzz/, for TOLLGATE_FUZZ_SECONDS (60)
#
# The summary at the end lists what passed, what failed and what could not run. The exit code is 1 if
# anything failed; 2 if nothing failed but something could not run, or not to its end; else 0.
set -euo pipefail

sections=(seeds loom faults swarm quota nginx door llm fuzz)
for name in "$@"; do
    [[ " ${sections[*]} " == *" $name "* ]] ||
        { echo "usage: scripts/deep.sh [section...], of: ${sections[*]}" >&2; exit 64; }
done

# A relative target directory is meant from the caller's directory.
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-$(dirname "${BASH_SOURCE[0]}")/../target}")
export CARGO_TARGET_DIR
cd "$(dirname "${BASH_SOURCE[0]}")/.."

passed=() failed=() incomplete=()
section='' # the one that runs
todo=()    # those after it
work=$(mktemp -d)

pass() { passed+=("$section: $*"); echo "ok          $*"; }
fail() { failed+=("$section: $*"); echo "FAILED      $*"; }
cannot() { incomplete+=("$section: $*"); echo "INCOMPLETE  $*"; }

# check WHAT COMMAND...: the command must succeed.
check() {
    if "${@:2}"; then pass "$1"; else fail "$1"; fi
}

# Also when the script is interrupted, and when a command fails that no section expects to fail.
summary() {
    local code=$?
    trap - EXIT
    # shellcheck disable=SC2046 # a word each
    kill $(jobs -pr) 2>/dev/null || true
    wait
    rm -rf "$work"
    [[ -z $section ]] || fail "stopped with exit code $code"
    for section in "${todo[@]}"; do cannot "not started"; done
    printf '\n== summary (%ss)\n' "$SECONDS"
    for line in "${passed[@]}"; do echo "ok          $line"; done
    for line in "${incomplete[@]}"; do echo "INCOMPLETE  $line"; done
    for line in "${failed[@]}"; do echo "FAILED      $line"; done
    ((${#failed[@]} == 0)) || exit 1
    ((${#incomplete[@]} == 0)) || exit 2
}

seeds() {
    local cases=${TOLLGATE_CASES:-50} swarms=${TOLLGATE_SWARM_SEEDS:-100000}
    check "$cases times the cases, $swarms swarms" \
        env TOLLGATE_CASES="$cases" TOLLGATE_SWARM_SEEDS="$swarms" \
        cargo test --quiet --release --no-fail-fast --features swarm --lib --tests
    local storms=${TOLLGATE_SHARE_SEEDS:-10000}
    check "$storms storms of a quota" env TOLLGATE_SHARE_SEEDS="$storms" \
        cargo test --quiet --release -p share-tests no_storm
    check "the model of a quota in more states" \
        cargo test --quiet --release -p share-tests in_more_states -- --ignored
}

loom() {
    local bound=${LOOM_MAX_PREEMPTIONS:-4} seconds=${TOLLGATE_LOOM_SECONDS:-600} binary models code model
    binary=$(RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="$CARGO_TARGET_DIR/loom" \
        cargo test -p loom-tests --profile loom --test models --no-run 2>&1 | tee >(cat >&2) |
        sed -nE 's/^ *Executable .*\((.*)\)$/\1/p') || { fail "the models do not compile"; return; }
    models=$("$binary" --list | sed -n 's/: test$//p')
    # shellcheck disable=SC2016 # expanded by the shell that is started
    LOOM_MAX_PREEMPTIONS=$bound RUST_BACKTRACE=0 xargs -P "$(nproc)" -I{} bash -c '
        code=0
        timeout --foreground "$3" "$2" --exact "$4" >"$1/$4" 2>&1 || code=$?
        echo "$code $4"' - "$work" "$binary" "$seconds" {} <<<"$models" >"$work/codes"
    while read -r code model; do
        case $code in
            0) pass "$model" ;;
            124) cannot "$model did not finish in $seconds s with $bound preemptions" ;;
            *) tail -n 30 "$work/$model"; fail "$model" ;;
        esac
    done <"$work/codes"
}

faults() {
    local code=0
    command -v python3 >/dev/null || { cannot "there is no python3: apt-get install python3"; return; }
    python3 scripts/faults.py || code=$?
    case $code in
        0) pass "each fault is caught" ;;
        3) cannot "python3 is older than 3.11" ;;
        *) fail "each fault is caught" ;;
    esac
}

swarm() {
    check "ten agents over NATS" cargo test --quiet --release -p tollgate --all-features --test upstream \
        over_nats -- --ignored --nocapture --test-threads 8
    check "the ledger on three servers" cargo test --quiet --release -p tollgate --all-features --test nats \
        ledger -- --ignored --nocapture --test-threads 1
}

quota() {
    local server port
    check "a quota on servers that come and go" cargo test --quiet --release -p tollgate --all-features \
        --test nats quota -- --ignored --nocapture --test-threads 1
    command -v python3 >/dev/null || { cannot "there is no python3: apt-get install python3"; return; }
    local run=(cargo run --quiet --release --features nats --example swarm_quota --)
    cargo build --quiet --release --features nats --example swarm_quota ||
        { fail "the example swarm_quota does not compile"; return; }
    local all='status_429 == 0 and utilisation >= 0.97' most='status_429 == 0 and utilisation >= 0.93'
    json "eight agents share a limit" "$all" "${run[@]}"
    json "two of them are killed" "$most" "${run[@]}" --kill 2
    json "agents are killed, join and leave" 'status_429 == 0 and utilisation >= 0.9' \
        "${run[@]}" --kill 2 --join 1 --leave 1
    json "without a quota" 'status_429 > admitted' "${run[@]}" --no-share --seconds 10
    start_nginx 200 || return 0
    local url=http://127.0.0.1:$port/
    json "eight agents and nginx" "$all" "${run[@]}" --upstream "$url"
    json "two of them are killed, and nginx" "$most" "${run[@]}" --upstream "$url" --kill 2
    json "without a quota, and nginx" 'status_429 > admitted' \
        "${run[@]}" --upstream "$url" --no-share --seconds 10
    kill "$server"
    wait "$server" || true
}

# json WHAT CONDITION COMMAND...: the condition holds for the numbers of the JSON on the command's last line.
json() {
    local json
    local holds='import json, sys; assert eval(sys.argv[1], json.loads(sys.argv[2]))'
    if json=$("${@:3}" | tail -n 1) && python3 -c "$holds" "$2" "$json"; then
        pass "$1: $json"
    else
        fail "$1: expected $2, not $json"
    fi
}

# client WHAT CONDITION ARGUMENT...
client() {
    json "$1" "$2" cargo run --quiet --release --example api_client -- \
        --upstream "http://127.0.0.1:$port/" --tasks 16 --seconds 10 "${@:3}"
}

# start_nginx RATE: a server that allows this many requests a second and a burst of 20, on $port; $server is its process.
start_nginx() {
    local program tries=0
    # Debian installs it where a user's PATH does not look.
    program=$(PATH=$PATH:/usr/sbin type -P nginx) ||
        { cannot "there is no nginx: apt-get install nginx-light"; return 1; }
    port=$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
    mkdir -p "$work/www"
    echo hello >"$work/www/index.html"
    cat >"$work/nginx.conf" <<CONFIG
daemon off;
master_process off;
pid $work/nginx.pid;
error_log $work/nginx.log crit;
events { }
http {
    access_log off;
    client_body_temp_path $work/temp;
    proxy_temp_path $work/temp;
    fastcgi_temp_path $work/temp;
    uwsgi_temp_path $work/temp;
    scgi_temp_path $work/temp;
    limit_req_zone \$binary_remote_addr zone=api:1m rate=$1r/s;
    server {
        listen 127.0.0.1:$port;
        root $work/www;
        limit_req zone=api burst=20 nodelay;
        limit_req_status 429;
    }
}
CONFIG
    "$program" -e "$work/nginx.log" -c "$work/nginx.conf" &
    server=$!
    until (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
        ((++tries < 100)) || { cat "$work/nginx.log"; fail "nginx does not start"; return 1; }
        sleep 0.1
    done
}

nginx() {
    local server port
    command -v python3 >/dev/null || { cannot "there is no python3: apt-get install python3"; return; }
    cargo build --quiet --release --example api_client ||
        { fail "the example api_client does not compile"; return; }
    start_nginx 100 || return 0
    # 16 tasks with a burst of 2 of their own: even after a stall no more than nginx's burst arrives
    # at once.
    client "below nginx's limit no request is refused" \
        'status_429 == 0 and 0.5 < utilisation <= 1' --rate 80 --burst 4
    # nginx allows half of the client's limit. Without a cut the client is served a sixth of it.
    client "above nginx's limit the client is refused, slows down and goes on" \
        '0 < status_429 < requests / 10 and 0.22 < utilisation < 0.6' --rate 200 --burst 40
    # It allows a tenth of the client's limit, and half of what is wanted.
    client "far above nginx's limit the client sends what was served, and few more" \
        'requests_after_15s > 45 * 60 and status_429_after_15s < requests_after_15s / 100' \
        --rate 1000 --demand 200 --seconds 60
    local start steady='requests_after_15s - status_429_after_15s > 0.88 * 100 * 60'
    for start in 10 10000; do
        client "an adaptive limit that starts at $start finds nginx's" \
            "$steady and status_429_after_15s < requests_after_15s / 200" \
            --rate "$start" --adaptive --demand 12000 --seconds 75
    done
    kill "$server"
    wait "$server" || true
}

# The throughput is compared where most requests are refused, as behind a limit that is needed.
door() {
    command -v wrk >/dev/null || { cannot "there is no wrk: apt-get install wrk"; return; }
    check "what is admitted and refused at many times the limit" cargo test --quiet --release -p web-tests \
        --test server a_minute_of_wrk -- --ignored --nocapture
    cargo bench --quiet --features door --bench door -- wrk | tee "$work/door"
    check "refused requests: at least tower_governor's throughput" awk -F ' *[|] *' '
        /[*][*]/ { refused = /refused/ }
        refused && $2 == "tollgate" { seen++; if ($5 < 1) slower = 1 }
        END { exit slower || seen != 2 }' "$work/door"
}

# A minute of the provider lasts 10 s.
llm() {
    command -v python3 >/dev/null || { cannot "there is no python3: apt-get install python3"; return; }
    local run=(cargo run --quiet --release --features web --example llm_client -- --seconds 60)
    cargo build --quiet --release --features web --example llm_client ||
        { fail "the example llm_client does not compile"; return; }
    json "honest estimates" 'requests > 2000 and status_429 == 0 and utilisation >= 0.95' "${run[@]}"
    local factor
    for factor in 3 0.333; do
        json "$factor times the tokens are estimated, and settled" \
            'requests > 2000 and status_429 < requests / 100 and utilisation >= 0.9' \
            "${run[@]}" --estimate-factor "$factor"
    done
    # Without feedback 13 % are refused, and 0.2 to 0.5 % if nothing is left for the other client.
    json "another client uses a third" \
        'requests > 1500 and status_429 < requests / 200 and utilisation >= 0.9' \
        "${run[@]}" --foreign 0.333
    json "another client uses a third, and refusals tell no time" \
        'requests > 1500 and status_429 < requests / 200 and utilisation >= 0.9' \
        "${run[@]}" --foreign 0.333 --no-retry-after
}

fuzz() {
    local target seconds=${TOLLGATE_FUZZ_SECONDS:-60}
    local tool=(cargo +nightly fuzz)
    cargo +nightly --version >/dev/null 2>&1 ||
        { cannot "there is no nightly toolchain: rustup toolchain install nightly"; return; }
    "${tool[@]}" --version >/dev/null 2>&1 ||
        { cannot "there is no cargo-fuzz: cargo install cargo-fuzz --locked"; return; }
    for target in limit_text bus_bytes http_answer; do
        mkdir -p "fuzz/corpus/$target" # what the fuzzer finds: the next run starts with it
        if "${tool[@]}" run --target-dir "$CARGO_TARGET_DIR/fuzz" "$target" \
            "fuzz/corpus/$target" "fuzz/seeds/$target" -- \
            -dict="fuzz/dictionaries/$target" -max_total_time="$seconds" -timeout=60 \
            >"$work/fuzz" 2>&1; then
            pass "$target: $(tail -n 1 "$work/fuzz")"
        else
            grep -a -A 1 'panicked at' "$work/fuzz" || true
            tail -n 40 "$work/fuzz"
            fail "$target"
        fi
    done
}

trap summary EXIT
trap 'exit 130' INT TERM
todo=("${@:-${sections[@]}}")
while ((${#todo[@]} > 0)); do
    section=${todo[0]} todo=("${todo[@]:1}")
    printf '\n== %s (%ss)\n' "$section" "$SECONDS"
    "$section"
done
section=''
