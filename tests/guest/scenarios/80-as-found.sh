# kernels: 6.12
# Somebody else has set up tracing. Whatever ends a recording, all of it is there again: `X.ref` is before, `X.ours` after.
. /lib.sh
fresh
cd /tmp
exec 2>&1
# fails COMMAND...: it must.
fails() { if "$@"; then echo "this should have failed: $*"; exit 1; fi; }
# end SIGNAL PID: ends a process and waits for it.
end() { kill -$1 $2; wait $2 || true; }
running() { until [ "$(cat $T/tracing_on)" = 1 ]; do usleep 20000; done; }

# Something of everything that a recording could disturb.
others() {
  (
    cd $T || exit 1
    mkdir -p instances/others
    echo 'p:theirs/opened do_sys_openat2' >> dynamic_events
    echo 'p:theirs/idle vfs_statx' >> dynamic_events
    echo 1 > events/theirs/opened/enable
    echo 1 > events/timer/timer_start/enable
    echo 1 > events/irq/enable
    echo 'prev_pid > 0' > events/sched/sched_switch/filter
    echo 'pid > 1' > events/sched/sched_waking/filter
    echo 'traceoff:5 if prev_pid == 999999' >> events/sched/sched_switch/trigger
    echo 'hist:keys=pid' >> events/sched/sched_wakeup/trigger
    echo 1 > instances/others/events/sched/sched_switch/enable
    echo 'prev_pid > 3' > instances/others/events/sched/sched_switch/filter
    echo mono > instances/others/trace_clock
    echo vfs_read vfs_write > set_ftrace_filter
    echo 'vfs_fsync:traceoff:5' >> set_ftrace_filter
    echo vfs_open > set_ftrace_notrace
    echo do_exit > set_graph_function
    echo 1 2 > set_event_pid
    echo 3 > set_event_notrace_pid
    echo 1 > set_ftrace_pid
    echo function > current_tracer
    echo 1 > options/func_stack_trace
    echo 1 > options/stacktrace
    echo 0 > options/irq-info
    echo global > trace_clock
    echo 300 > buffer_size_kb
    echo 70 > buffer_percent
    echo 3 > max_graph_depth
    echo 1 > tracing_cpumask
    echo 0 > tracing_on
    echo 200 > saved_cmdlines_size
    echo > error_log
  )
}
# Everything at once: own events, filters, triggers, tracer, lists, sizes, options, an instance.
options="-e sched -f common_pid>2 -e irq:irq_handler_entry -R stacktrace -e theirs:idle -v -e sched:sched_stat* -p function -l vfs_* -l do_exit
  -l vfs_rename:traceoff -n vfs_fsync -g do_exit -O nostacktrace -O irq-info -C mono -b 400 -M 3 --max-graph-depth 2
  --cmdlines-size 500 -B mine -e sched:sched_switch -b 100 -C boot"
# same NAME: the state is as it was before.
same() { echo > $T/error_log; state $OUT/$1.ours; cp $OUT/before $OUT/$1.ref; }

others
state $OUT/before
ours record $options -o a.dat sh -c '. /lib.sh; work'
same normal
ours report a.dat > a.txt
grep -q vfs_ a.txt && grep -q 'mine:.*sched_switch' a.txt

# The command fails, or does not exist.
fails ours record $options --exit-status -o b.dat sh -c 'exit 7'
fails ours record -e sched -B mine -e irq -o b.dat /no/such/program
same failing

# Ctrl-C with a command, SIGTERM and SIGHUP without.
tracecmd record $options -o c.dat sleep 100 & pid=$!
running
end INT $pid
killall sleep
ours report c.dat > c.txt
grep -q vfs_ c.txt
for sig in TERM HUP; do
  tracecmd record -e sched -f 'common_pid > 3' -B mine -e irq -o d.dat & pid=$!
  running
  usleep 100000
  end $sig $pid
  ours report d.dat > d.txt
  grep -q . d.txt
done
same signals

# An error half way: each of these is found out after other settings were made.
settings="-e sched -f common_pid>2 -e irq -R stacktrace -C mono -b 100 -O nostacktrace -B mine -e timer"
fails ours record $settings -O nosuchoption -o e.dat true
fails ours record $settings -M zz -o e.dat true
fails ours record $settings -b 99999999999 -o e.dat true
fails ours record $settings -l no_such_function_at_all -o e.dat true
fails ours record $settings --temp /nowhere -o e.dat true
fails ours record $settings -o /nowhere/e.dat true
[ ! -e e.dat ]
# start and set that fail leave nothing behind either.
fails ours start $settings -O nosuchoption
fails ours set -e sched -b 99999999999
same errors

# A refused filter or trigger is told and stops nothing.
ours record -e sched:sched_switch -f 'nofield == 1' -R nosuchtrigger -o f.dat true > f.txt
grep -q 'Failed filter of' f.txt && grep -q 'Field not found' f.txt && grep -q 'Failed trigger of' f.txt
same refused

# The same trigger that somebody else has: theirs stays.
ours record -e sched:sched_switch -R 'traceoff:5 if prev_pid == 999999' -e sched:sched_wakeup -R 'hist:keys=pid' -o f.dat true
same twice

# Killed: the next recording undoes what is left, its own and the killed one's. The instance goes too.
tracecmd record $settings -p function -l do_exit -o g.dat sleep 100 & pid=$!
running
end KILL $pid
killall sleep
[ -d $T/instances/mine ]
ours record -e sched -o h.dat true
same killed
rm -f g.dat.*
fresh
