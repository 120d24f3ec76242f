#!/bin/sh
# Branch coverage of the layers that decide what survives, by the tests: sh tests/coverage.sh [FILE]
# With FILE, the branches that no test takes are listed in it.
#
# Needs a nightly compiler, and the tools of the LLVM that it is built on: LLVM_BIN=/usr/lib/llvm-22/bin (Debian's package llvm-22).
set -eu
cd "$(dirname "$0")/.."
llvm=${LLVM_BIN:-/usr/lib/llvm-22/bin}
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/coverage"
export RUSTFLAGS="-Cinstrument-coverage -Zcoverage-options=branch"
profiles="$CARGO_TARGET_DIR/profiles"
mkdir -p "$CARGO_TARGET_DIR"
rm -rf "$profiles"
export LLVM_PROFILE_FILE="$PWD/$profiles/%p-%m.profraw"
case "$profiles" in /*) LLVM_PROFILE_FILE="$profiles/%p-%m.profraw" ;; esac

tests="-p seawal --all-features --lib --test suite --test damage --test processes"
# shellcheck disable=SC2086 # they are several words
cargo +nightly test -q $tests --no-run --message-format=json >"$CARGO_TARGET_DIR/built.json"
# where system calls are counted and made to fail, those that write the counts would be among them
# shellcheck disable=SC2086
cargo +nightly test -q $tests -- --skip inject:: >"$CARGO_TARGET_DIR/tests.log" 2>&1 || {
    tail -30 "$CARGO_TARGET_DIR/tests.log"
    exit 1
}
"$llvm/llvm-profdata" merge -sparse "$profiles"/*.profraw -o "$CARGO_TARGET_DIR/all.profdata"
objects=$(sed -n 's/.*"executable":"\([^"]*\)".*/ -object \1/p' "$CARGO_TARGET_DIR/built.json" | tr -d '\n')
# what is compiled into several programs is counted once: taken in any of them
# shellcheck disable=SC2086
"$llvm/llvm-cov" export -format=lcov -instr-profile "$CARGO_TARGET_DIR/all.profdata" $objects -sources src >"$CARGO_TARGET_DIR/all.lcov"

awk -v listing="${1:-/dev/null}" '
    function area(file) {
        if (file ~ /\/tests?(\/|\.rs)|_tests\.rs|\/models\.rs/) return ""
        if (file ~ /src\/engine\/(checkpoint|estimate|digest)/ || file ~ /src\/snapshot\//) return "checkpoint"
        if (match(file, /src\/(wal|txn|recovery|format)\//)) {
            split(substr(file, RSTART + 4), part, "/")
            return part[1]
        }
        return ""
    }
    # where the tests within a file begin: what those assert is not counted
    function tests_of(path,    line, n, at, tests) {
        while ((getline line <path) > 0) {
            n++
            # a test module of its own file is none of this one
            if (!at && tests && line !~ /^mod [a-z_]+;/) at = n - 1
            tests = line ~ /^#\[cfg\((test\)|all\(test, not)/
        }
        close(path)
        return at ? at : n + 1
    }
    /^SF:/ {
        path = file = substr($0, 4)
        sub(/.*\/src\//, "src/", file)
        where = area(file)
        if (where != "") tests = tests_of(path)
    }
    /^BRDA:/ && where != "" {
        split(substr($0, 6), part, ",")
        if (part[1] + 0 >= tests) next
        branch = file ":" part[1] ":" part[2] ":" part[3]
        if (!(branch in all)) { all[branch] = where; hit[branch] = 0 }
        if (part[4] != "-" && part[4] + 0 > 0) hit[branch] = 1
    }
    END {
        for (branch in all) {
            total[all[branch]]++
            if (hit[branch]) taken[all[branch]]++
            else print branch >listing
        }
        for (where in total) {
            printf "%-12s %4d of %4d branches, %.1f %%\n", where, taken[where], total[where], 100 * taken[where] / total[where]
        }
    }
' "$CARGO_TARGET_DIR/all.lcov" | sort
