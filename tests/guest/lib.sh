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

# fresh: tracing as after boot, by the program of tests/src/bin.
fresh() {
  kernel-state fresh
}

# marks: a command for recordings, /tmp/marks, that writes ten marks and makes some events.
marks() {
  cat > /tmp/marks <<'M'
for n in 1 2 3 4 5 6 7 8 9 10; do echo "mark $n" > /sys/kernel/tracing/trace_marker; done
ls / > /dev/null
sleep 0.1
M
}

# program ours|ref: its name, where a function would not do (its process id is not that of the program).
program() {
  if [ "$1" = ours ]; then echo tracecmd; else echo trace-cmd; fi
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

# ready PORT: waits until a listener is at the port.
ready() {
  hex=$(printf ':%04X' "$1")
  for n in $(seq 200); do
    grep -q "$hex .*:0000 0A" /proc/net/tcp /proc/net/tcp6 && return
    sleep 0.05
  done
  return 1
}

# complete DIR: waits until the listener's file is there; a listener may make it in steps.
complete() {
  for n in $(seq 200); do
    set -- "$1"/trace.*.dat
    [ -e "$1" ] && ours report -i "$1" > /dev/null 2>&1 && return
    set -- "${1%/*}"
    sleep 0.1
  done
  return 1
}

# send CLIENT ADDRESS NAME OPTIONS...: a recording of the marks to the listener at ADDRESS, CLIENT ours or ref; `read` are the records
# that the recorders read from the kernel then.
send() {
  client=$1 address=$2 name=$3; shift 3
  fresh
  "$client" record -k -N "$address" "$@" sh /tmp/marks > "$OUT/$name.log" 2>&1
  read=$(cat $T/per_cpu/cpu*/stats | awk '/^read events/ { n += $3 } END { print n }')
}

# pair CLIENT LISTENER V1|V3 tcp|udp NAME OPTIONS...: a recording over the network inside the guest, CLIENT and LISTENER ours or ref.
# What the recorders read from the kernel has to be in the file, and the marks of the recording too; else `faults` is set.
port=5000 faults=0
pair() {
  marks
  client=$1 listener=$2 version=$3 carrier=$4 name=$1-$2-$3-$4-$5; shift 5
  dir=/tmp/$name; mkdir -p "$dir"
  port=$((port + 1))
  # Ours can do as a peer does that knows no other protocol; the reference cannot.
  there= here=
  if [ "$version" = V1 ]; then
    if [ "$client" = ours ]; then here=--only-v1; else there=--only-v1; fi
  fi
  [ "$carrier" = tcp ] && here="$here -t"
  # shellcheck disable=SC2086 # options, perhaps none
  $(program "$listener") listen -p $port -d "$dir" $there > "$dir/log" 2>&1 &
  pid=$!
  ready $port
  # shellcheck disable=SC2086
  send "$client" localhost:$port "$name" $here "$@"
  complete "$dir" || { echo "$name: no file"; cat "$OUT/$name.log" "$dir/log"; faults=1; kill $pid; return; }
  kill -INT $pid
  wait $pid || true
  mv "$dir"/trace.*.dat "$OUT/$name.dat"
  mv "$dir/log" "$OUT/$name.listener"
  have=$(ours report -R -i "$OUT/$name.dat" 2> /dev/null | grep -c '\[[0-9]*\]' || true)
  found=$(ours report -i "$OUT/$name.dat" 2> /dev/null | grep -c 'mark [0-9]' || true)
  echo "$name: $read read, $have in the file, $found marks"
  [ "$found" = 10 ] && [ "$have" = "$read" ] && return
  # The reference's listener does not count the datagrams that it was too slow for, which is often where there is one CPU.
  [ "$listener:$carrier" = ref:udp ] && [ "$have" -gt 0 ] && [ "$have" -lt "$read" ] && return
  cat "$OUT/$name.log" "$OUT/$name.listener"
  faults=1
}
