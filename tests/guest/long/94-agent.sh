# Guest and host in one: the agent records the top buffer of this kernel, `record -A` an instance of it. Our and the reference's
# programs as both sides, over vsock loopback and TCP. Both files have to name each other, and the marks of the time have to
# be in the guest's; both programs have to merge the files in the same way.
. /lib.sh
modprobe vsock_loopback 2> /dev/null || true
faults=0 port=9000
set +e

trace_id() {
  awk '/Option TRACEID/ { getline; print $1 }' "$OUT/$1.options"
}

# session RECORDER AGENT vsock|tcp
session() {
  recorder=$1 agent=$2 carrier=$3 name=$1-$2-$3
  port=$((port + 1))
  fresh
  if [ "$carrier" = tcp ]; then words="-N 127.0.0.1" to=127.0.0.1:$port; else words= to="1:$port --name vm"; fi
  # shellcheck disable=SC2086 # options, perhaps none
  $(program "$agent") agent $words -p $port > "$OUT/$name.agent" 2>&1 &
  pid=$!
  sleep 1
  timeout 60 "$(program "$recorder")" record -o "$OUT/$name.dat" -B host -e sched -A $to -e raw_syscalls sh /tmp/marks \
    > "$OUT/$name.log" 2>&1 || { echo "$name: status $?"; faults=1; }
  # The reference takes the name of a guest for that of its host, so there is none over TCP.
  [ "$carrier" = tcp ] && mv "$OUT/$name-127.0.0.1.dat" "$OUT/$name-vm.dat"
  kill -INT $pid 2> /dev/null || true
  (sleep 5; kill -9 $pid) 2> /dev/null &
  wait $pid 2> /dev/null || true
  # The instances for times: the agent's has the number of its peer, the recorder's is 0. The reference's recorder leaves its own.
  left=$(ls $T/instances | grep clock_synch)
  [ "$recorder" = ref ] && left=$(echo "$left" | grep -v 'clock_synch-0$')
  [ -z "$left" ] || { echo "$name: $left is left"; faults=1; }
  # What the two files say of each other, whoever reads it.
  for file in "$name" "$name-vm"; do
    ours dump --options -i "$OUT/$file.dat" > "$OUT/$file.options" 2>&1
    ref dump --options -i "$OUT/$file.dat" > "$OUT/$file.options-ref" 2>&1
  done
  own=$(trace_id "$name") guest=$(trace_id "$name-vm")
  peer=$(awk '/Option TimeShift/ { getline; print $1 }' "$OUT/$name-vm.options")
  named=$(awk '/Option GUEST/ { getline; getline; print $1 }' "$OUT/$name.options")
  # The reference writes no id of its own when its top buffer is not recorded.
  [ "$recorder" = ref ] && own=$peer
  [ -n "$own" ] && [ "$own" = "$peer" ] && [ -n "$guest" ] && [ "$guest" = "$named" ] || {
    echo "$name: ids $own $peer, $guest $named"
    faults=1
  }
  in_guest=$(ours report -i "$OUT/$name-vm.dat" | grep -c 'mark [0-9]' || true)
  merged=$(ours report -i "$OUT/$name.dat" -i "$OUT/$name-vm.dat" | grep -c 'sched_\|sys_' || true)
  echo "$name: $in_guest marks, $merged lines merged"
  [ "$in_guest" = 10 ] || { cat "$OUT/$name.log" "$OUT/$name.agent"; faults=1; }
  # The reference as recorder over TCP measures TSC against nanoseconds: its own merged times overflow (DIFFERENCES.md).
  [ "$recorder:$carrier" = ref:tcp ] && return 0
  # Measurements of a busy machine that are seconds apart: the reference's own times overflow then (DIFFERENCES.md).
  awk '/\[offset \*/ { if (!n++) min = max = $1; if ($1 < min) min = $1; if ($1 > max) max = $1 } END { exit max - min > 1e9 }' \
    "$OUT/$name-vm.options" || [ $try = 3 ] || return 1
  ours report -i "$OUT/$name.dat" -i "$OUT/$name-vm.dat" > "$OUT/$name.merged.ours" 2> /dev/null || faults=1
  ref report -i "$OUT/$name.dat" -i "$OUT/$name-vm.dat" > "$OUT/$name.merged.ref" 2> /dev/null || true
  return 0
}

# Up to three times, where the machine was too busy to measure.
pairing() {
  for try in 1 2 3; do
    session "$@" && return
    echo "$*: once more"
  done
}

marks
for carrier in vsock tcp; do
  pairing ours ours $carrier
  pairing ours ref $carrier
  pairing ref ours $carrier
  pairing ref ref $carrier
done
exit $faults
