# Recordings over the network inside the guest, a short choice: each program is client and listener of the other, both protocols,
# TCP and UDP, events and the function graph. The whole table is in long/92-all-pairs.sh.
. /lib.sh
pair ours ref V3 tcp events -e sched -e raw_syscalls
pair ref ours V3 udp graph -p function_graph --max-graph-depth 2
pair ours ref V1 udp events -e sched
pair ref ours V1 tcp events -e sched
pair ours ours V3 udp events -e sched
exit $faults
