#!/usr/bin/env bash
# Tests the tests: applies one deliberate defect after another to a copy of the crate and prints
# which test catches it.
#
#     tests/defects.sh [NAME…]
#     tests/defects.sh --check
#
# A NAME selects the defects whose number or name contains it. Without a NAME, all are tried.
# `--check` runs no test: it checks within seconds that every defect applies to the source and that
# its tests exist.
#
# A defect is a file in tests/defects: a sentence that says what is broken and what that would lose,
# a `tests:` line for each run of `cargo test` that should catch it, the quickest first, and the
# edits. An edit names an item and the tokens that it replaces there, so that moving code leaves the
# defect valid. tests/defects/tool/src/defect.rs describes the format.
#
# The exit status is 0 if all defects are caught, and 1 if one survives, does not apply, or does not
# compile. DEFECTS_DIR names a directory that keeps the copy's build for the next run. The script
# needs nothing but cargo and git.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0 CARGO_PROFILE_DEV_DEBUG=0
unset SEAWAL_LONG

tool() {
  cargo run -q --manifest-path "$root/tests/defects/tool/Cargo.toml" \
    --target-dir "$root/target/defects" -- "$@"
}

if [ "${1:-}" = --check ]; then
  if [ $# -gt 1 ]; then
    echo "--check takes no further arguments" >&2
    exit 1
  fi
  tool check .
  exit
fi
# a tool that does not compile is not a fault of the first defect
cargo build -q --manifest-path tests/defects/tool/Cargo.toml --target-dir target/defects

work=${DEFECTS_DIR:-}
if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
rm -rf "$work/tree" "$work/original"
mkdir -p "$work/tree"
work=$(cd "$work" && pwd -P)
# The copies are newer than every earlier build, so that cargo never takes a build of a broken copy
# for a build of this one.
git ls-files -z |
  while IFS= read -r -d '' file; do [ ! -f "$file" ] || printf '%s\0' "$file"; done |
  tar --null -T - -cf - | tar -xmf - -C "$work/tree"
cp -R "$work/tree" "$work/original"
cd "$work/tree"
# The copy must not count as part of a repository around it.
export GIT_CEILING_DIRECTORIES=$work CARGO_TARGET_DIR=$work/target

output=$work/output
# Building the dependencies must not count towards the time of the first defect.
[ -d "$CARGO_TARGET_DIR" ] || cargo test -q --no-run -p seawal --lib
bad=0 tried=0

# Prints the file and name of the test that failed in $output, and its message.
catcher() {
  local file test message
  file=$(sed -n 's/^ *Running \(unittests \)\?\([^ ]*\) .*/\2/p' "$output" | tail -n 1)
  test=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$output" | head -n 1)
  test=${test% - should panic}
  message=$(grep -m 1 -A 1 "^thread '${test:-.*}'.* panicked at" "$output" |
    tail -n 1 | cut -c 1-100 || true)
  printf '%s::%s (%s)' "$file" "${test:-?}" "${message:-the process ended}"
}

# Succeeds if `cargo test` with these arguments catches the defect; sets `answer`.
catches() {
  local status=0
  # Only the run has a time limit: the build takes as long as the machine needs.
  # shellcheck disable=SC2086
  if cargo test -p seawal --no-run $1 >"$output" 2>&1; then
    timeout 300 cargo test -p seawal $1 >"$output" 2>&1 || status=$?
  else
    status=1
  fi
  case $status in
    0) return 1 ;;
    124)
      answer="caught by $(sed -n 's/^ *Running \(unittests \)\?\([^ ]*\) .*/\2/p' "$output" |
        tail -n 1), which hung"
      ;;
    *)
      if ! grep -q '^running ' "$output"; then
        answer="DOES NOT COMPILE: $(grep -m 1 '^error' "$output")"
      else
        answer="caught by $(catcher)"
      fi
      ;;
  esac
}

selected() {
  [ $# -gt 1 ] || return 0
  local name=$1 part
  shift
  for part; do [[ $name != *"$part"* ]] || return 0; done
  return 1
}

for defect in "$root"/tests/defects/*.defect; do
  name=$(basename "$defect" .defect)
  selected "$name" "$@" || continue
  tried=$((tried + 1)) began=$SECONDS answer=SURVIVED
  if ! changed=$(tool apply "$defect" . 2>"$output"); then
    answer="DOES NOT APPLY: $(head -n 1 "$output")"
  else
    while IFS= read -r arguments; do
      ! catches "$arguments" || break
    done < <(sed -n 's/^tests: *//p' "$defect")
    while IFS= read -r file; do cp "$work/original/$file" "$file"; done <<<"$changed"
    # Cases that a property test has recorded would help it against the next defect.
    find . -name '*.proptest-regressions' -delete
    rm -rf proptest-regressions
  fi
  [[ $answer == caught* ]] || bad=1
  printf '%-44s %s [%s s]\n' "${name/-/ }" "$answer" $((SECONDS - began))
done
if [ "$tried" = 0 ]; then
  echo "no defect matches: $*" >&2
  exit 1
fi
printf '%s defects in %s s\n' "$tried" "$SECONDS"
exit $bad
