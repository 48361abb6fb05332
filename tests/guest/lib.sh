# Functions for the scripts that run in a guest. `. /lib.sh` reads them.
T=/sys/kernel/tracing

# state FILE: all control files of tracing that a program may change, one `path:content` a line, of the top buffer and of every
# instance. Left out: what changes by itself (trace, per-CPU statistics, counters, formats).
state() {
  (
    cd $T || exit 1
    for top in . instances/*; do
      [ -d "$top" ] || continue
      for f in buffer_percent buffer_size_kb buffer_subbuf_size_kb buffer_total_size_kb current_tracer dynamic_events error_log \
        kprobe_events max_graph_depth set_event set_event_notrace_pid set_event_pid set_ftrace_filter set_ftrace_notrace \
        set_ftrace_notrace_pid set_ftrace_pid set_graph_function set_graph_notrace synthetic_events trace_clock trace_options \
        tracing_cpumask tracing_max_latency tracing_on tracing_thresh uprobe_events; do
        [ -e "$top/$f" ] && sed "s|^|$top/$f:|" "$top/$f" 2>/dev/null
      done
      for f in "$top"/options/*; do sed "s|^|$f:|" "$f"; done
      find "$top/events" \( -name enable -o -name filter -o -name trigger \) -print0 | xargs -0 grep -H '' | grep -v '/trigger:#' | sort
    done
    sed 's|^|ftrace_enabled:|' /proc/sys/kernel/ftrace_enabled
    sed 's|^|stack_tracer_enabled:|' /proc/sys/kernel/stack_tracer_enabled 2>/dev/null
  ) > "$1"
}

# fresh: tracing as after boot.
fresh() {
  (
    set +e # a file that refuses does not keep the rest from being reset
    cd $T || exit 1
    # Twice: a histogram that takes a variable of another goes before that one.
    for again in 1 2; do
      grep -Hs '^[^#]' events/*/*/trigger | sed 's/ \[[a-z]*\]$//; s/:unlimited//' | while IFS= read -r line; do
        echo "!${line#*trigger:}" >> "${line%%trigger:*}trigger"
      done
    done
    echo 0 > tracing_on
    echo nop > current_tracer
    echo 0 > events/enable
    for f in set_event set_event_pid set_ftrace_pid set_ftrace_filter set_ftrace_notrace set_graph_function set_graph_notrace; do
      [ -e $f ] && echo > $f
    done 2>/dev/null
    for i in instances/*; do [ -d "$i" ] && rmdir "$i"; done
    echo > dynamic_events
    echo local > trace_clock
    echo 0 > max_graph_depth
    echo 50 > buffer_percent
    echo 4 > buffer_subbuf_size_kb
    echo 1408 > buffer_size_kb
    echo > trace
    echo > error_log
    echo 1 > tracing_on
  ) 2>/dev/null || true
}

# work: something of everything to trace: processes, files, a signal, sleep, the network, a block device.
work() {
  ls -lR /proc/self > /dev/null 2>&1
  dd if=/dev/zero of=/tmp/w bs=4k count=20 2> /dev/null
  mv /tmp/w /tmp/v
  rm /tmp/v
  sleep 0.05
  (sleep 5 & kill $!) 2> /dev/null
  ping -c 1 127.0.0.1 > /dev/null 2>&1
  dd if=/dev/zero of=/dev/ram0 bs=4k count=4 2> /dev/null
  true
}
