# kernels: 7.2
# The crates on this kernel: the live tests of tracefs, and the scenarios of trace-cmd's own unit tests. Both leave it as it was.
. /lib.sh
fresh
state $OUT/all.ref
tracefs-live --test-threads=1
# Skipped is only what this kernel does not have: fprobes and tracepoint probes, and the mapped buffer.
fresh
unit-list
ours reset
state $OUT/all.ours
