#!/usr/bin/env bash
# Tests the tests: puts one deliberate defect after another into a copy of the crate and says which test catches it.
#
#     tests/defects.sh [NAME…]
#
# Each NAME selects the defects whose number or name it is a part of; without any, all are tried. A defect is a patch in tests/defects:
# a sentence saying what is broken and what that would lose, then one `tests:` line for each run of `cargo test` that should notice,
# the quickest first, then the difference. Exit status: 0 if all are caught; 1 if one survives, no longer applies, or does not run.
# DEFECTS_DIR names a directory that keeps the copy's build for the next time. Needs nothing but cargo and git.
set -euo pipefail
cd "$(dirname "$0")/.."
patches=$PWD/tests/defects
export CARGO_TERM_COLOR=never RUST_BACKTRACE=0 CARGO_PROFILE_DEV_DEBUG=0
unset SEAWAL_LONG

work=${DEFECTS_DIR:-}
if [ -z "$work" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
fi
rm -rf "$work/tree"
mkdir -p "$work/tree"
work=$(cd "$work" && pwd -P)
# as new files: what an earlier run built of a broken copy must not pass for what is built of this one
git ls-files -z | while IFS= read -r -d '' file; do [ ! -f "$file" ] || printf '%s\0' "$file"; done |
  tar --null -T - -cf - | tar -xmf - -C "$work/tree"
cd "$work/tree"
# the copy is not part of any repository, also where it lies in one
export GIT_CEILING_DIRECTORIES=$work CARGO_TARGET_DIR=$work/target

said=$work/said
# what does not change is not to count towards the time of a run below
[ -d "$CARGO_TARGET_DIR" ] || cargo test -q --no-run -p seawal --lib
bad=0 tried=0

# The name of the test that failed in $said, with its file, and what it said.
catcher() {
  local file test words
  file=$(sed -n 's/^ *Running \(unittests \)\?\([^ ]*\) .*/\2/p' "$said" | tail -n 1)
  test=$(sed -n 's/^test \(.*\) \.\.\. FAILED$/\1/p' "$said" | head -n 1)
  test=${test% - should panic}
  words=$(grep -m 1 -A 1 "^thread '${test:-.*}'.* panicked at" "$said" | tail -n 1 | cut -c 1-100 || true)
  printf '%s::%s (%s)' "$file" "${test:-?}" "${words:-the process ended}"
}

# Whether one run of `cargo test` with the arguments notices; `answer` says how.
notices() {
  local status=0
  # building takes as long as it takes: only the run is timed
  # shellcheck disable=SC2086
  if cargo test --no-run $1 >"$said" 2>&1; then timeout 300 cargo test $1 >"$said" 2>&1 || status=$?; else status=1; fi
  case $status in
    0) return 1 ;;
    124) answer="caught by $(sed -n 's/^ *Running \(unittests \)\?\([^ ]*\) .*/\2/p' "$said" | tail -n 1), which hung" ;;
    *)
      if ! grep -q '^running ' "$said"; then
        answer="DOES NOT RUN: $(grep -m 1 '^error' "$said")"
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

for patch in "$patches"/*.patch; do
  name=$(basename "$patch" .patch)
  selected "$name" "$@" || continue
  tried=$((tried + 1)) began=$SECONDS answer=SURVIVED
  if ! git apply "$patch" 2>"$said"; then
    answer="NO LONGER APPLIES: $(head -n 1 "$said")"
  else
    while IFS= read -r arguments; do
      ! notices "$arguments" || break
    done < <(sed -n 's/^tests: *//p' "$patch")
    git apply -R "$patch"
    # cases that a property test has kept would help against the next defect
    find . -name '*.proptest-regressions' -delete
    rm -rf proptest-regressions
  fi
  [[ $answer == caught* ]] || bad=1
  printf '%-44s %s [%s s]\n' "${name/-/ }" "$answer" $((SECONDS - began))
done
if [ "$tried" = 0 ]; then
  echo "no defect is named so: $*" >&2
  exit 1
fi
printf '%s defects in %s s\n' "$tried" "$SECONDS"
exit $bad
