#!/usr/bin/env bash
# Measures how limiters scale, and draws the charts of benches/charts. Two minutes, on a machine that is
# otherwise quiet.
set -euo pipefail
cd "$(dirname "$0")/.."
found=$(realpath "${CARGO_TARGET_DIR:-target}")/scaling.json
cargo bench --bench scaling -- --json "$found"
python3 scripts/charts.py "$found" benches/charts
