# kernels: 6.1
# A guest that has its host recorded by the proxy (`agent -P`), both in one kernel: each program on each side. The proxy's file names
# the guest, the guest's own file has the measured times with the proxy's id, and the marks are in the proxy's file.
. /lib.sh
set +e
modprobe vsock_loopback 2> /dev/null
faults=0
marks
for pair in ours:ours ours:ref ref:ours ref:ref; do
  record=$(program "${pair%:*}") agent=$(program "${pair#*:}") name=$pair-proxy
  fresh
  # Its own port: with -p the reference has a wrong complaint.
  $agent agent -P 1 > "$OUT/$name.agent" 2>&1 &
  pid=$!
  sleep 5
  timeout 60 $record record -o "$OUT/$name.dat" -B host -e sched --proxy 1 --name vm -e raw_syscalls sh /tmp/marks > "$OUT/$name.log" 2>&1 || faults=1
  kill -INT $pid
  (sleep 5; kill -9 $pid) 2> /dev/null &
  wait $pid
  # The instance of this machine is not shifted by the reference's report, so only the proxy's file is compared.
  mv "$OUT/$name.dat" "$OUT/$name.own"
  ours dump --options -i "$OUT/$name.own" > "$OUT/$name.options"
  ours dump --options -i "$OUT/$name-vm.dat" > "$OUT/$name-vm.options"
  id=$(awk '/Option TRACEID/ { getline; print $1 }' "$OUT/$name-vm.options")
  peer=$(awk '/Option TimeShift/ { getline; print $1 }' "$OUT/$name.options")
  marks=$(ours report -i "$OUT/$name-vm.dat" | grep -c 'mark [0-9]')
  echo "$name: $marks marks, ids $id $peer"
  [ "$marks" = 10 ] && [ -n "$id" ] && [ "$id" = "$peer" ] && grep -q '^::GUEST::' "$OUT/$name-vm.options" || {
    cat "$OUT/$name.log" "$OUT/$name.agent"
    faults=1
  }
done
exit $faults
