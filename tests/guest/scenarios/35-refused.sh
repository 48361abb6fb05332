# kernels: 6.12
# A kernel that refuses to write some control files (EPERM), as lockdown and some cloud kernels do: a recording that does not need
# them works, one that was asked for what they give is an error that names the file. Immutable files stand in for the kernel's.
. /lib.sh
refuse() {
  cat "$1" > /tmp/refused-$2
  kernel-state immutable /tmp/refused-$2
  mount --bind /tmp/refused-$2 "$1"
  if echo 1 > "$1"; then echo "$1 is not refused"; exit 1; fi
}
fresh
state $OUT/state.ref
refuse $T/set_ftrace_filter filter
refuse /proc/sys/kernel/ftrace_enabled enabled

ours record -e sched -e irq -o $OUT/events.dat sh -c '. /lib.sh; work' > $OUT/ours.log 2>&1
ours record -e sched -B one -e irq -F -o $OUT/instance.dat ls / > $OUT/ours.log 2>&1
# A tracer without a filter needs none of them while functions are traced as the kernel has it.
ours record -p function_graph --max-graph-depth 3 -F -o $OUT/graph.dat ls / > $OUT/ours.log 2>&1

if ours record -q -p function -l vfs_read -o $OUT/filter.dat ls / > $OUT/said 2>&1; then echo 'a refused filter is no error'; exit 1; fi
cat $OUT/said
grep -q set_ftrace_filter $OUT/said
if grep -q 'not available' $OUT/said; then exit 1; fi
grep -qi permit $OUT/said
[ ! -e $OUT/filter.dat ]
# C trace-cmd does not record here.
if ref record -e sched -o /tmp/ref.dat ls / > $OUT/reference 2>&1; then echo 'the reference records'; exit 1; fi
cat $OUT/reference

umount $T/set_ftrace_filter
umount /proc/sys/kernel/ftrace_enabled
rmdir $T/instances/one 2> /dev/null || true
state $OUT/state.ours
