# Records the x86-64 files of fixtures/ with the reference. Runs in a guest as a guest script; needs kernel-state of tests/src/bin.
# A short symbol table stands in for /proc/kallsyms, so that a file has 100 to 300 KiB instead of 1.7 MiB.
. /lib.sh
grep -E ' (vfs_|do_sys|do_syscall|ksys_|__x64_sys_(open|read|write|exec|nano)|schedule|__schedule|entry_SYSCALL|path_open|link_path|try_to_wake|ret_from|kthread|hrtimer|tick_|security_file|rw_verify|fsnotify|kmem_cache|kmalloc|kfree|filp|dput|mntput|pipe_)' \
  /proc/kallsyms > /tmp/kallsyms
mount --bind /tmp/kallsyms /proc/kallsyms
K=$(uname -r | cut -d. -f1,2)
R() {
  name=x86_64-$K-$1; shift
  fresh
  echo "$name: record $*"
  trace-cmd record -o /out/$name.dat "$@" > /out/$name.log 2>&1 || cat /out/$name.log
}
cat > /tmp/w << 'W'
. /lib.sh
work
W
case $K in
6.1)
  R sched-v6 --file-version 6 -e sched:sched_switch -e sched:sched_wakeup -e irq sh /tmp/w
  R stack-zlib --compression zlib -e sched:sched_switch -T ls /
  R date-mono --date -C mono -e signal -e task sh /tmp/w
  ;;
6.12)
  R fgraph-v6 --file-version 6 -p function_graph -g do_sys_openat2 --max-graph-depth 4 ls /proc/self
  R net -e net -e sock -e skb -e tcp -e icmp sh /tmp/w
  R lost -p function -b 4 -s 300000 ls -R /proc/self
  ;;
*)
  R instances -e signal -B one -e sched:sched_switch -C mono -B two -p function_graph -l 'vfs_*' -B three -e syscalls:sys_enter_openat ls /
  R subbuf64 --subbuf-size 64 -e sched:sched_switch -e kmem:kmalloc ls /
  R syscalls -e syscalls -F ls /
  fresh
  trace-cmd start -p function_graph -l 'vfs_*' > /out/.log 2>&1
  echo 1 > $T/options/funcgraph-args
  echo 1 > $T/options/funcgraph-proc
  ls / > /dev/null
  trace-cmd stop >> /out/.log 2>&1
  trace-cmd extract -o /out/x86_64-$K-fgraph-args.dat >> /out/.log 2>&1 || cat /out/.log
  fresh
  echo 'p:opened do_sys_openat2 dfd=%di:s32 file=+0(%si):ustring regs=+0(%si):x8[8] bits=%di:b4@2/32' >> $T/kprobe_events
  echo 'r:opened_ret do_sys_openat2 fd=$retval:s32' >> $T/kprobe_events
  echo 'f:wrote vfs_write count=$arg3' >> $T/dynamic_events
  echo 'e:names syscalls.sys_enter_openat file=+0($filename):ustring' >> $T/dynamic_events
  echo 'lat u64 us; pid_t pid; char comm[16]; char other[]' >> $T/synthetic_events
  echo 'hist:keys=pid:ts0=common_timestamp.usecs' > $T/events/sched/sched_waking/trigger
  echo 'hist:keys=next_pid:us=common_timestamp.usecs-$ts0:onmatch(sched.sched_waking).lat($us,next_pid,next_comm,prev_comm)' > $T/events/sched/sched_switch/trigger
  trace-cmd record -o /out/x86_64-$K-dynamic.dat -e kprobes -e fprobes -e eprobes -e synthetic sh /tmp/w > /out/.log 2>&1 || cat /out/.log
  ;;
esac
fresh
