#!/usr/bin/env bash
# Loads real histories and compares the result, byte for byte, with an answer that was not taken from them; then
# again while the load is killed at random moments, verified, and resumed.
#
#     tests/real_input.sh DATA_DIR [KILLS]
#
# DATA_DIR holds pairs of NAME.txn.gz and NAME.expected.tsv. KILLS (50 unless given) are spread over the largest of them.
# SEAWAL_BIN names the program; without it, it is built.
set -euo pipefail

data=${1:?usage: tests/real_input.sh DATA_DIR [KILLS]}
kills=${2:-50}
if [ -z "${SEAWAL_BIN:-}" ]; then
  cargo build --release -p seawal-cli
  SEAWAL_BIN=$(cargo metadata --format-version 1 --no-deps | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')/release/seawal
fi
work=$(mktemp -d)
child=
trap 'if [ -n "$child" ]; then kill -9 "$child" 2>/dev/null || true; fi; rm -rf "$work"' EXIT

fail() { echo "real_input: $*" >&2; exit 1; }

# The store in $1 holds what $2 says, and is whole.
compare() {
  "$SEAWAL_BIN" dump --dir "$1" | cmp - "$2" || fail "the store differs from $2"
  "$SEAWAL_BIN" verify --dir "$1" >"$work/verify" || fail "verify after the end: $(cat "$work/verify")"
}

largest=
for script in "$data"/*.txn.gz; do
  [ -e "$script" ] || fail "$data holds no .txn.gz"
  expected=${script%.txn.gz}.expected.tsv
  store=$work/$(basename "$script" .txn.gz)
  "$SEAWAL_BIN" load --dir "$store" "$script"
  compare "$store" "$expected"
  rm -rf "$store"
  # the same through a pipe, uncompressed
  gzip -dc "$script" | "$SEAWAL_BIN" load --dir "$store" --durability os - >"$work/out"
  compare "$store" "$expected"
  rm -rf "$store"
  if [ -z "$largest" ] || [ "$(stat -c %s "$script")" -gt "$(stat -c %s "$largest")" ]; then largest=$script; fi
done

expected=${largest%.txn.gz}.expected.tsv
store=$work/killed
killed=0 completed=0 torn=0
while :; do
  "$SEAWAL_BIN" load --dir "$store" --resume --in-flight $((1 + RANDOM % 64)) "$largest" >"$work/out" 2>"$work/err" &
  child=$!
  if [ "$killed" -lt "$kills" ]; then
    sleep "0.$(printf %03d $((5 + RANDOM % 250)))"
    kill -9 "$child" 2>/dev/null || true
  fi
  status=0
  wait "$child" 2>/dev/null || status=$?
  child=
  case $status in
    137)
      killed=$((killed + 1))
      # a kill before the first file is there leaves no store, which is status 4
      status=0
      "$SEAWAL_BIN" verify --dir "$store" >"$work/verify" 2>&1 || status=$?
      case $status in
        0) ;;
        1) torn=$((torn + 1)) ;;
        4) [ -z "$(find "$store" -name '*.seg' 2>/dev/null)" ] || fail "no store after a kill: $(cat "$work/verify")" ;;
        *) fail "verify after kill $killed answers $status: $(cat "$work/verify")" ;;
      esac
      ;;
    0)
      compare "$store" "$expected"
      completed=$((completed + 1))
      if [ "$killed" -ge "$kills" ]; then break; fi
      rm -rf "$store"
      ;;
    *) fail "load answers $status: $(cat "$work/err")" ;;
  esac
done
echo "real_input: $killed kills, $torn torn tails, $completed loads ended; every one of them holds what $expected says"
