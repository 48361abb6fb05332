# kernels: 6.1
# `listen -V` and `record -V` over vsock loopback: each program as client and as listener; all that was read is in the file.
. /lib.sh
set +e
modprobe vsock_loopback 2> /dev/null
faults=0 port=7000
marks
for pair in ours:ours ours:ref ref:ours ref:ref; do
  client=$(program "${pair%:*}") listener=$(program "${pair#*:}") name=$pair-vsock dir=/tmp/$pair
  port=$((port + 1))
  mkdir -p "$dir"
  $listener listen -V -p $port -d "$dir" > "$OUT/$name.listener" 2>&1 &
  pid=$!
  sleep 2
  fresh
  timeout 60 $client record -k -V 1:$port -e sched sh /tmp/marks > "$OUT/$name.log" 2>&1 || faults=1
  read=$(cat $T/per_cpu/cpu*/stats | awk '/^read events/ { n += $3 } END { print n }')
  complete "$dir"
  kill -INT $pid
  wait $pid
  mv "$dir"/trace.V1:*.dat "$OUT/$name.dat"
  have=$(ours report -R -i "$OUT/$name.dat" | grep -c '\[[0-9]*\]')
  marks=$(ours report -i "$OUT/$name.dat" | grep -c 'mark [0-9]')
  echo "$name: $read read, $have in the file, $marks marks"
  [ "$have" = "$read" ] && [ "$marks" = 10 ] || { cat "$OUT/$name.log" "$OUT/$name.listener"; faults=1; }
done
exit $faults
