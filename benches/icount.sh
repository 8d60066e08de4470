#!/bin/bash
# Instructions per call, by callgrind: the difference between two counts of calls, divided.
# `benches/icount.sh "GROUP/CONTENDER"...`; without arguments, those that matter most.
set -euo pipefail
cd "$(dirname "$0")/.."
exe=$(cargo bench --bench ratios --no-run 2>&1 | sed -n 's/.*Executable.*(\(.*\))$/\1/p')
few=20000 many=1020000
instructions() {
    valgrind --tool=callgrind --callgrind-out-file=/dev/null "$exe" --calls "$1" "$2" 2>&1 |
        sed -n 's/.*Collected : //p'
}
if [ $# = 0 ]; then
    for load in "admitted, full bucket of 1e9" "admitted, from a stock" "denied, bucket of 1"; do
        set -- "$@" "$load/floor" "$load/governor" "$load/tollgate, handle"
    done
    set -- "$@" "by name, admitted, 1 name/governor keyed" "by name, admitted, 1 name/tollgate, name"
    set -- "$@" "permit, taken and dropped/tollgate, Spend" "acquire, without waiting/tollgate, acquire"
    for limits in "throttle-net" "tollgate, check 3 names" "tollgate, check 3 handles" \
        "tollgate, permits, 3 handles" "tollgate, 3 windows, handle"; do
        set -- "$@" "three limits, admitted/$limits"
    done
fi
echo "| call | instructions |"
echo "|---|---:|"
for name in "$@"; do
    few_took=$(instructions "$name" $few)
    many_took=$(instructions "$name" $many)
    echo "| $name | $(((many_took - few_took + (many - few) / 2) / (many - few))) |"
done
