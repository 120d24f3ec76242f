#!/usr/bin/env bash
# Tests the tests: activates one deliberate defect after another in a copy of the crate and prints
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
# edits. An edit names a function and the tokens that it replaces there, so that moving code leaves
# the defect valid. tests/defects/tool/src/defect.rs describes the format.
#
# The copy is built once, with all of the defects: each function that they change holds all of its
# bodies, and the environment variable SEAWAL_DEFECT names the defect that runs. Without it, the copy
# behaves as the crate does: the tests that have caught a defect must pass then.
#
# The exit status is 0 if all defects are caught, and 1 if one survives, does not apply, or does not
# compile. DEFECTS_DIR names a directory that keeps the copy and its build for the next run. The
# script needs nothing but cargo and git.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0 CARGO_PROFILE_DEV_DEBUG=0
unset SEAWAL_LONG SEAWAL_DEFECT

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

selected() {
  local defect part
  for defect in "$root"/tests/defects/*.defect; do
    [ $# -gt 0 ] || echo "$defect"
    for part; do
      if [[ ${defect##*/} == *"$part"* ]]; then
        echo "$defect"
        break
      fi
    done
  done
}
mapfile -t defects < <(selected "$@")
if [ ${#defects[@]} = 0 ]; then
  echo "no defect matches: $*" >&2
  exit 1
fi

work=${DEFECTS_DIR:-}
if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
rm -rf "$work/tree"
mkdir -p "$work/tree"
work=$(cd "$work" && pwd -P)
# The copy is newer than every earlier build, so that cargo never takes a build of another copy for
# a build of this one.
git ls-files -z |
  while IFS= read -r -d '' file; do [ ! -f "$file" ] || printf '%s\0' "$file"; done |
  tar --null -T - -cf - | tar -xmf - -C "$work/tree"
tool combine "$work/tree" "${defects[@]}"
cd "$work/tree"
# The copy must not count as part of a repository around it.
export GIT_CEILING_DIRECTORIES=$work CARGO_TARGET_DIR=$work/target

output=$work/output
mapfile -t targets < <(sed -n 's/^tests: *//p' "${defects[@]}" | grep -oE '^--lib|^--test [^ ]+' | sort -u)

# Optimizing the crate would take longer than it saves the tests.
test=(cargo --config profile.dev.package.seawal.opt-level=0 test -p seawal --all-features)

# Runs `cargo test` with these arguments, until a test fails or the time is up.
run() {
  : >"$output"
  timeout "$limit" "${test[@]}" "$@" --nocapture >>"$output" 2>&1 &
  while kill -0 $! 2>/dev/null; do
    if grep -q '^test .* FAILED$' "$output"; then kill $! 2>/dev/null || true; fi
    sleep 0.1
  done
  wait $!
}

# Prints the file and name of the test that failed in $output, and its message.
catcher() {
  local file name message
  file=$(sed -n 's/^ *Running \(unittests \)\?\([^ ]*\) .*/\2/p' "$output" | tail -n 1)
  name=$(failed)
  message=$(grep -m 1 -A 1 "^thread '${name:-.*}'.* panicked at" "$output" |
    tail -n 1 | cut -c 1-100 || true)
  printf '%s::%s (%s)' "$file" "${name:-?}" "${message:-the process ended}"
}

failed() {
  sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$output" | sed 's/ - should panic$//' | head -n 1
}

# shellcheck disable=SC2086
if ! "${test[@]}" --no-run ${targets[*]} >"$output" 2>&1; then
  grep -A 5 '^error' "$output" >&2 || true
  # Each error stands below the line that names its defect.
  sed -n '/^error/,/^ *-->/s/^ *--> \([^:]*\):\([0-9]*\):.*/\1 \2/p' "$output" |
    while read -r file line; do
      head -n "$line" "$file" | sed -n 's/.*is_active("\(.*\)").*/\1 DOES NOT COMPILE/p' | tail -n 1
    done | sort -u
  exit 1
fi
printf 'built in %s s\n' "$SECONDS"

bad=0 limit=300
declare -A catchers=()
for defect in "${defects[@]}"; do
  name=$(basename "$defect" .defect) began=$SECONDS answer=SURVIVED
  export SEAWAL_DEFECT=$name
  while IFS= read -r arguments; do
    status=0
    # shellcheck disable=SC2086
    run $arguments -- || status=$?
    case $status in
      0) continue ;;
      124) answer="caught by $arguments, which hung" ;;
      *)
        grep -q '^running ' "$output" || break
        answer="caught by $(catcher)"
        target=$(grep -oE '^--lib|^--test [^ ]+' <<<"$arguments")
        catchers[$target]+=" $(failed)"
        ;;
    esac
    break
  done < <(sed -n 's/^tests: *//p' "$defect")
  # Cases that a property test has recorded would help it against the next defect.
  find . -name '*.proptest-regressions' -delete
  rm -rf proptest-regressions
  [[ $answer == caught* ]] || bad=1
  printf '%-44s %s [%s s]\n' "${name/-/ }" "$answer" $((SECONDS - began))
done

# A test that fails in any case catches nothing.
unset SEAWAL_DEFECT
limit=infinity
for target in "${!catchers[@]}"; do
  # shellcheck disable=SC2086
  if [[ ${catchers[$target]} = *[!\ ]* ]] && ! run $target -- --exact ${catchers[$target]}; then
    bad=1
    printf 'FAILS WITHOUT A DEFECT: %s\n' "$(catcher)"
  fi
done
printf '%s defects in %s s\n' "${#defects[@]}" "$SECONDS"
exit $bad
