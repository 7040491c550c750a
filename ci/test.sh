#!/bin/sh
# Every check and test there is: `make test` calls it once everything it needs is there. Stops at
# the first step that fails; the last line says how many tests there were.
set -eu
cd "$(dirname "$0")/.."

log=target/ci/test.log
failure=target/ci/failure
mkdir -p target/ci
rm -f "$log" "$failure"

for step in check deny host-tests fuzz miri build boots; do
    echo "==> ci/$step.sh"
    # A pipe ends with the status of its last command, so a failure is left in a file.
    { "ci/$step.sh" 2>&1 || echo "ci/$step.sh" >"$failure"; } | tee -a "$log"
    [ ! -e "$failure" ] || {
        echo "FAILED: $(cat "$failure")"
        exit 1
    }
done

# The last line of each step: "image: 5 passed, 0 failed".
awk '
    /^[a-z0-9 ]+: [0-9]+ passed, [0-9]+ failed/ {
        for (i = 2; i < NF; i++) if ($i == "passed,") { passed += $(i - 1); failed += $(i + 1) }
    }
    END { printf "%d passed, %d failed\n", passed, failed; exit failed > 0 }' "$log"
