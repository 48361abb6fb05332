# CPU time of record, the time to the finished file, and losses, beside the reference. What it prints is for docs/PERFORMANCE.md.
. /lib.sh
fresh
record-speed /bin/tracecmd /bin/trace-cmd ${CALLS:-300000} ${ROUNDS:-5} | tee /dev/console
ours record -q -o "$OUT/last.dat" -e sched sleep 0.1
