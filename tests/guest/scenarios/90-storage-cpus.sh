# Storage, CPUs and instances that fail while a recording runs.
. /lib.sh
fresh
cd $OUT
cat > /tmp/busy <<'END'
s=$(date +%s)
while [ $(($(date +%s) - s)) -lt $1 ]; do ls -lR /proc/self > /dev/null 2>&1; done
END
events() { ours report -i $1 2> /dev/null | grep -c ': sched_'; }
small() { mkdir -p /tmp/small; mount -t tmpfs -o size=20m none /tmp/small; dd if=/dev/zero of=/tmp/small/fill bs=1k count=$1 2> /dev/null; }

# A disk that is full and stays so: an error, tracing is as before, and what is on the disk can be read at once.
small 16000
if (cd /tmp/small && ours record -b 512 -e sched -e kmem -e syscalls -o t.dat sh /tmp/busy 5) > full.log 2>&1; then
  echo "a full disk gave status 0"; cat full.log; exit 1
fi
cat full.log; ls -l /tmp/small
grep -q 'No space left' full.log
grep -q 'raw data remain' full.log
[ ! -e /tmp/small/t.dat ]
[ $(cat $T/tracing_on) = 1 ]
[ $(cat $T/events/enable) = 0 ]
ours report -i /tmp/small/t.dat > full.report
[ $(wc -l < full.report) -gt 100 ]
ours restore -o full.dat /tmp/small/t.dat
ours report -i full.dat > restored.report
cmp full.report restored.report
umount /tmp/small

# A disk that is full for a while: told once, tried again, and the file is complete but for what the kernel had no room for.
small 17500
# However slow the guest is: the room comes back when the recorder has said that there is none.
(n=0; until grep -q 'trying again' moment.log 2> /dev/null || [ $n = 60 ]; do sleep 1; n=$((n + 1)); done; sleep 1; rm /tmp/small/fill) &
ours record --temp /tmp/small -b 512 -e sched -e kmem -o moment.dat \
  sh -c 'while [ -e /tmp/small/fill ]; do ls -lR /proc/self > /dev/null 2>&1; done; sh /tmp/busy 2' > moment.log 2>&1
wait
cat moment.log
grep -q 'trying again until the recording ends' moment.log
grep -q 'can be written again' moment.log
ours report -i moment.dat | grep -q 'EVENTS DROPPED'
umount /tmp/small

# A CPU goes away and comes back: its events from before and after are there.
if [ -e /sys/devices/system/cpu/cpu1/online ]; then
  (sleep 1; echo 0 > /sys/devices/system/cpu/cpu1/online; sleep 1; echo 1 > /sys/devices/system/cpu/cpu1/online) &
  ours record -e sched -o hotplug.dat sh /tmp/busy 5 > hotplug.log 2>&1
  wait
  ours report --cpu 1 -i hotplug.dat | awk '{ t = $3 + 0; if (!first) first = t; if (t - last > gap) gap = t - last; last = t } END { print first, last, "gap", gap }'
  [ $(ours report --cpu 1 -i hotplug.dat | wc -l) -gt 20 ]
fi

# An instance cannot go while it is recorded, and what was recorded is there.
(sleep 2; if rmdir $T/instances/gone; then echo gone; fi) > rmdir.log 2>&1 &
ours record -B gone -e sched -o gone.dat sh /tmp/busy 4 > gone.log 2>&1
wait
cat rmdir.log
grep -q -i busy rmdir.log
[ $(events gone.dat) -gt 2 ]
fresh
