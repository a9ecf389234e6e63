#!/bin/sh
# A shell script that works with and without supervisor:
#     supervisor --enable-heartbeat ./heartbeat.sh
# Copy into your own script: `interval`, beat(), and the call of beat in your loop.

# supervisor sets HEARTBEAT_TIMEOUT (seconds, 0.5 for example). Four beats in that
# time leave room for three late ones. sh has no fractions, so awk divides.
interval=$(LC_ALL=C awk -v t="${HEARTBEAT_TIMEOUT:-20}" \
    'BEGIN { t += 0; printf "%.6f", (t > 0 ? t : 20) / 4 }')

# A beat is a write to the file. HEARTBEAT_FILE not set: not supervised, no beats.
# A failed write prints a message and is not fatal, `set -e` or not.
# (Not `: > file`: in sh a failed redirection of `:` ends the script.)
beat() {
    [ -z "${HEARTBEAT_FILE:-}" ] || date > "$HEARTBEAT_FILE" || return 0
}

# beat stands in the loop that does the work. In a background loop of its own it
# would go on when the work hangs, and supervisor would see nothing.
while true; do
    echo working        # your work; longer than the interval? call beat in it too
    beat
    sleep "$interval"   # waiting for work: never longer than this at a time
done
