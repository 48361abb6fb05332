# kprobes with arguments and strings, a uprobe, a synthetic event fed by a histogram.
. /lib.sh
fresh
(
  cd $T
  echo 'p:opened do_sys_openat2 dfd=%di file=+0(%si):ustring' >> kprobe_events
  echo 'r:opened_ret do_sys_openat2 fd=$retval:s32' >> kprobe_events
  echo 'wake_lat u64 lat; pid_t pid' >> synthetic_events
  echo 'hist:keys=pid:ts0=common_timestamp.usecs' > events/sched/sched_waking/trigger
  echo 'hist:keys=next_pid:lat=common_timestamp.usecs-$ts0:onmatch(sched.sched_waking).wake_lat($lat,next_pid)' > events/sched/sched_switch/trigger
)
state $OUT/state-before.ref
ours record -e kprobes -e synthetic -o $OUT/ours.dat sh -c '. /lib.sh; work' > $OUT/ours.log 2>&1
state $OUT/state-before.ours
fresh
