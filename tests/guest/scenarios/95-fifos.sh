# kernels: 7.2
# FIFOs of setup-guest, with both ends in one kernel: data of the agent reach `record -A` without a socket. The same of the
# reference's setup-guest, and all pairings of recorder and agent.
. /lib.sh
set +e
faults=0 port=9700

marks
cpus=$(ls -d $T/per_cpu/cpu* | wc -l)
for who in ref ours; do
  rm -rf /var/lib/trace-cmd
  mkdir -p /var/lib
  $who setup-guest -c "$cpus" vm || faults=1
  $who setup-guest -c 1 -p 0622 -g root other || faults=1
  # Kinds, permissions, owners and names; not sizes and times.
  ls -lR /var/lib/trace-cmd | awk 'NF > 2 { print $1, $3, $4, $NF } NF == 1' > "$OUT/setup.$who"
done
mkdir -p /dev/virtio-ports
for c in $(seq 0 $((cpus - 1))); do
  ln -sf /var/lib/trace-cmd/virt/vm/trace-pipe-cpu$c.out /dev/virtio-ports/trace-pipe-cpu$c
done
for pair in ours:ours ours:ref ref:ours ref:ref; do
  record=$(program "${pair%:*}") agent=$(program "${pair#*:}") name=$pair-fifo
  port=$((port + 1))
  fresh
  $agent agent -p $port > "$OUT/$name.agent" 2>&1 &
  pid=$!
  sleep 3
  timeout 60 $record record -o "$OUT/$name.dat" -B host -e sched -A vm@1:$port -e raw_syscalls sh /tmp/marks > "$OUT/$name.log" 2>&1 || faults=1
  kill -INT $pid
  (sleep 5; kill -9 $pid) 2> /dev/null &
  wait $pid
  marks=$(ours report -i "$OUT/$name-vm.dat" | grep -c 'mark [0-9]')
  echo "$name: $marks marks"
  [ "$marks" = 10 ] || { cat "$OUT/$name.log" "$OUT/$name.agent"; faults=1; }
done
exit $faults
