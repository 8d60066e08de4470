#!/usr/bin/env bash
# Everything that CI checks, quick parts first. Up to half an hour on two cores from a clean clone.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s (%ss)\n' "$*" "$SECONDS"; }

say "format"
cargo fmt --all --check

say "one door to the primitives"
if grep -rnE '(std|core|loom)::sync::atomic' src --include='*.rs' | grep -v '^src/sync'; then
    echo "atomics belong into src/sync" >&2
    exit 1
fi

say "no layer imports a later one"
python3 scripts/check-layers.py

say "no dependency needs a later Rust"
python3 scripts/check-msrv.py

say "a NATS server for the tests"
scripts/nats-server.sh

say "lints, and each feature alone"
cargo clippy --workspace --all-targets --quiet --all-features -- -D warnings
cargo clippy --quiet -p tollgate --all-targets -- -D warnings
cargo clippy --quiet -p tollgate --all-targets --features swarm -- -D warnings
# Without the tests: with them, their dependencies would turn on what a feature forgot to ask for.
for feature in http metrics nats serde stream swarm tokio tower tracing; do
    cargo clippy --quiet -p tollgate --features "$feature" --lib -- -D warnings
done

say "a light library"
crates=$(cargo tree -p tollgate -e normal --prefix none | sort -u | wc -l)
echo "$crates crates with itself"
[ "$crates" -le 20 ] || { echo "the library has more than 20 crates" >&2; exit 1; }

# The library without its features is what `-p tollgate` selects. Otherwise the examples and the benches
# are selected too, and they have the swarm.
say "tests, debug"
cargo test --quiet --features swarm
say "tests of the other features: NATS, serde, HTTP, tower, streams, metrics, traces"
cargo test --quiet -p tollgate --all-features --test nats
cargo test --quiet -p tollgate --all-features --test local text_serde
cargo test --quiet -p tollgate --all-features --lib --test http --test metrics --test stream --test tower \
    --test tower_client --test tracing
cargo test --quiet -p tollgate --all-features --doc
say "tests in axum, hyper, reqwest and tonic"
cargo test --quiet -p web-tests
say "tests, without features"
cargo test --quiet -p tollgate
say "tests, release"
cargo test --quiet --release --features swarm --lib --tests

say "the rules of a quota: storms, scenarios, traces and a model"
cargo test --quiet --release -p share-tests

say "tests of hot buckets, as where there is no membarrier"
RUSTFLAGS="--cfg tollgate_no_membarrier" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/no-membarrier" \
    cargo test --quiet -p tollgate --test stripes

say "docs"
for features in --all-features '--features swarm' ''; do
    # shellcheck disable=SC2086 # split on purpose
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps -p tollgate $features
done

say "loom: each model"
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" \
    cargo clippy --quiet -p loom-tests --all-targets -- -D warnings
RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom" RUST_BACKTRACE=0 \
    cargo test --quiet -p loom-tests --profile loom
say "loom: each fault can be applied (scripts/faults.py applies them)"
python3 scripts/faults.py --check

say "examples"
scripts/check-examples.sh

say "a light first command"
crates=$(cargo build --quiet --release --example rate_limiting --message-format json |
    grep -oE '"package_id":"[^"]*"' | sort -u | wc -l)
echo "cargo run --release --example rate_limiting: $crates crates"
[ "$crates" -le 60 ] || { echo "the first command has more than 60 crates" >&2; exit 1; }

# In the profile of the tests, which shares their builds: the profile `bench` links for minutes.
say "benches compile"
cargo bench --quiet --no-run --profile release

say "all is well"
