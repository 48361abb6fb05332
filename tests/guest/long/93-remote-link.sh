# A listener that goes away in the middle of a recording: the recording goes on into a local file, says so, and its status tells.
# Each mark is in the listener's file or in the local one.
. /lib.sh

# link LISTENER tcp|udp INT|KILL
link() {
  listener=$1 carrier=$2 signal=$3 name=$1-$2-$3
  dir=/tmp/$name; mkdir -p "$dir"
  port=$((port + 1))
  if [ "$carrier" = tcp ]; then words=-t; else words=; fi
  $(program "$listener") listen -p $port -d "$dir" > "$dir/log" 2>&1 &
  pid=$!
  ready $port
  fresh
  # The recorders are woken by every event, so that some of the first half is sent before the link breaks.
  echo 0 > $T/buffer_percent
  rm -f /tmp/half
  status=0
  # Its local file is ./trace.dat.
  # shellcheck disable=SC2086 # perhaps no option
  tracecmd record -N localhost:$port $words -e sched -e raw_syscalls sh /tmp/forty > "$OUT/$name.log" 2>&1 &
  recorder=$!
  while [ ! -e /tmp/half ] && kill -0 $recorder; do sleep 0.05; done
  # The recorders wait for half a buffer: what is in it then is read after the link broke, what was read before is on the way.
  sleep 1
  # The reference has a process for each client.
  if [ "$listener" = ref ]; then
    for child in $(sed -n "s/^\([0-9]*\) .* [A-Z] $pid .*/\1/p" /proc/[0-9]*/stat); do kill -$signal "$child" || true; done
  fi
  kill -$signal $pid
  wait $recorder || status=$?
  wait $pid || true
  cat "$OUT/$name.log"
  [ -e trace.dat ] && mv trace.dat "$OUT/$name-local.dat"
  for f in "$dir"/trace.*.dat; do [ -e "$f" ] && mv "$f" "$OUT/$name-there.dat"; done
  for n in $(seq 40); do
    found=0
    for f in "$OUT/$name-there.dat" "$OUT/$name-local.dat"; do
      [ -e "$f" ] && ours report -i "$f" 2> /dev/null | grep -q "mark $n\$" && found=1
    done
    [ $found = 1 ] || missing="$missing $n"
  done
  echo "$name: status $status, missing:$missing"
  [ $status = 3 ] || faults=1
  grep -q 'The listener is gone' "$OUT/$name.log" || faults=1
  grep -q "what came after that is in trace.dat" "$OUT/$name.log" || faults=1
  # A listener that is killed may have had bytes that it had not written yet.
  [ $signal = KILL ] || [ -z "$missing" ] || { cat "$dir/log"; faults=1; }
  missing=
}

cat > /tmp/forty <<'M'
for n in $(seq 20); do echo "mark $n" > /sys/kernel/tracing/trace_marker; ls / > /dev/null; done
echo > /tmp/half
sleep 3
for n in $(seq 21 40); do echo "mark $n" > /sys/kernel/tracing/trace_marker; ls / > /dev/null; done
M
link ours tcp INT
link ours tcp KILL
link ours udp INT
exit $faults
