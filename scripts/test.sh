#!/usr/bin/env bash
# Everything that CI checks, quick parts first. About ten minutes on two cores from a clean clone.
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

say "a NATS server for the tests"
scripts/nats-server.sh

say "lints, and each set of features"
cargo clippy --workspace --all-targets --quiet -- -D warnings
cargo clippy --workspace --all-targets --quiet --all-features -- -D warnings
cargo clippy --quiet --no-default-features --lib -- -D warnings
cargo clippy --quiet --no-default-features --features tokio --lib -- -D warnings
cargo clippy --quiet --no-default-features --features serde --lib --test local -- -D warnings

say "a light core"
crates=$(cargo tree -e normal --no-default-features --prefix none | sort -u | grep -vc '^tollgate ')
echo "$crates crates besides itself"
[ "$crates" -le 20 ] || { echo "the core has more than 20 crates" >&2; exit 1; }

say "tests, debug"
cargo test --quiet
say "tests over NATS, and with serde"
cargo test --quiet --all-features --test nats
cargo test --quiet --all-features --test local text_serde
cargo test --quiet --all-features --doc
say "tests, without default features"
cargo test --quiet --no-default-features --lib --tests
say "tests, release"
cargo test --quiet --release --lib --tests

say "tests of hot buckets, as where there is no membarrier"
RUSTFLAGS="--cfg tollgate_no_membarrier" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/no-membarrier" \
    cargo test --quiet --no-default-features --test stripes

say "docs"
for features in --all-features '' --no-default-features; do
    # shellcheck disable=SC2086 # none, where it is empty
    RUSTDOCFLAGS="-D warnings" cargo doc --quiet --no-deps $features
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

say "benches compile"
cargo bench --quiet --no-run

say "all is well"
