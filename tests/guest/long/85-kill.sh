# Recordings that are ended at random moments: the state is back (after SIGKILL: after reset), and what was recorded can be read.
# The moments are drawn from KILL_SEED; KILLS recordings for each signal: a few in every run of the tests, as many as TRACECMD_KILLS says
# when asked for.
. /lib.sh
fresh
cd /tmp
exec 2>&1
kills=${KILLS:-3}
# The settings that these recordings touch; all of them are compared at the end of each signal.
brief() {
  (cd $T && head -n 100 current_tracer tracing_on set_event set_event_pid set_event_notrace_pid set_ftrace_filter set_ftrace_notrace trace_clock \
    buffer_size_kb trace_options events/sched/sched_switch/filter events/sched/sched_waking/trigger dynamic_events && ls instances)
}
# Whatever others have stays.
mkdir $T/instances/others
echo 1 > $T/instances/others/events/sched/sched_switch/enable
brief > brief.before
state $OUT/before
for sig in INT TERM KILL; do
  n=0 readable=0 restored=0 none=0
  for ms in $(awk "BEGIN { srand(${KILL_SEED:-1}$(printf %d "'$sig")); for (i = 0; i < $kills; i++) print int(rand() * ${KILL_MS:-3000}) }"); do
    n=$((n + 1))
    rm -f k.dat* cmd.pid
    tracecmd record -q -e sched -f 'common_pid >= 0' -e sched:sched_waking -R stacktrace -l 'vfs_*' -C mono -b 200 -O sym-offset \
      -B mine -e irq -e timer -o k.dat sh -c 'echo $$ > cmd.pid; while :; do ls / > /dev/null; usleep 30000; done' > log.$n 2>&1 & pid=$!
    # Every third is ended while it may still be setting up, the others after their command has begun.
    [ $((n % 3)) = 0 ] || until [ -e cmd.pid ] || ! kill -0 $pid 2> /dev/null; do usleep 20000; done
    usleep $((ms * 1000))
    kill -$sig $pid 2> /dev/null || true
    wait $pid 2> /dev/null || true
    [ ! -e cmd.pid ] || kill $(cat cmd.pid) 2> /dev/null || true
    if [ $sig = KILL ]; then
      # A recording that was killed leaves its raw data; one that was done, or had not begun, its file or nothing.
      tracecmd reset > reset.log 2>&1 || { echo "$sig $n after $ms ms: reset:"; cat reset.log; exit 1; }
      if [ ! -e k.dat ] && ls k.dat.cpu* k.dat.mine.cpu* > /dev/null 2>&1; then
        tracecmd restore k.dat > restore.log 2>&1 || { echo "$sig $n after $ms ms: restore:"; cat restore.log; ls -l; exit 1; }
        restored=$((restored + 1))
      fi
    fi
    brief > brief.after
    cmp -s brief.before brief.after || { echo "$sig $n after $ms ms:"; diff brief.before brief.after; cat log.$n; exit 1; }
    if [ -e k.dat ]; then
      tracecmd report k.dat > k.txt 2> k.err || { echo "$sig $n after $ms ms: report:"; cat k.err log.$n; ls -l; exit 1; }
      [ ! -s k.err ] || { echo "$sig $n after $ms ms: report:"; cat k.err; exit 1; }
      [ $(wc -l < k.txt) -lt 2 ] || readable=$((readable + 1))
    else
      # Nothing but a recording that had not begun leaves no file.
      none=$((none + 1))
    fi
  done
  echo "$sig: $n recordings, $readable with events, $restored restored, $none ended before they had begun"
  # What the kernel still holds when the recorder is killed is not in the raw data: a short recording may have no events then.
  [ $sig = KILL ] || [ $((readable * 3)) -ge $n ] || exit 1
  [ $sig != KILL ] || [ $((restored * 3)) -ge $n ] || exit 1
  state $OUT/$sig.ours
  cp $OUT/before $OUT/$sig.ref
done
rm -f k.dat* log.*
fresh
