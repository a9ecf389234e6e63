#!/bin/sh
# A command's life in about 15 seconds: it beats, crashes twice, hangs, and finishes.
set -eu
cd "$(dirname "$0")/.."
# Memory rather than flash, where there is any.
directory=$(mktemp -d "$([ -w /dev/shm ] && echo /dev/shm || echo "${TMPDIR:-/tmp}")/supervisor-demo.XXXXXX")
trap 'rm -rf "$directory"' EXIT
# Ctrl-C ends the supervisor too; the directory is removed when that is done.
trap : INT TERM

cat <<EOF

The command below beats, and fails in three ways, one a run:
  run 1 crashes after 2 s        -> restarted after 0.5 s
  run 2 crashes at once          -> restarted after 1 s, twice the delay
  run 3 hangs after 2 s          -> found after 3 s of silence, stopped, restarted after 2 s
  run 4 works for 2 s and finishes with code 0, and so does the supervisor

\$ supervisor --enable-heartbeat --heartbeat-file $directory/heartbeat --timeout 3 \\
      --backoff-factor 0.5 python3 scripts/demo_client.py

EOF
status=0
DEMO_RUNS="$directory/runs" ./supervisor --enable-heartbeat --heartbeat-file "$directory/heartbeat" \
    --timeout 3 --backoff-factor 0.5 python3 scripts/demo_client.py || status=$?
echo
echo "The supervisor's exit code: $status"
exit "$status"
