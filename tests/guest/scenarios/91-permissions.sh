# kernels: 6.12
# Who may not, and what is not there: a sentence that says what to do. Whom the mount options give access, may.
. /lib.sh
fresh
cd /tmp
exec 2>&1
# says TEXT COMMAND...: fails, and TEXT is on its standard error.
says() {
  local text=$1; shift
  if "$@" > said 2>&1; then echo "this should have failed: $*"; cat said; exit 1; fi
  grep -q -- "$text" said || { echo "no \"$text\" in what $* said:"; cat said; exit 1; }
  [ $(wc -l < said) -le 12 ] || { echo "$* says too much:"; cat said; exit 1; }
}
grep -q ^user: /etc/passwd || echo user:x:1000:1000:user:/tmp:/bin/sh >> /etc/passwd
grep -q ^user: /etc/group || echo user:x:1000: >> /etc/group
user() { su user -c "cd /tmp/user; $*"; }
mkdir -p user; chown 1000:1000 user

# A user without access.
chmod 700 $T
says 'permission denied; run as root, or give a group access: mount -o remount' user tracecmd record -e sched true
says 'permission denied' user tracecmd list -e sched
says 'permission denied' user tracecmd start -e sched
says 'permission denied' user tracecmd reset
# What needs no kernel works for everybody.
ours record -q -e sched -o user/mine.dat true; chmod a+r user/mine.dat
user tracecmd report mine.dat > rep
[ $(wc -l < rep) -gt 1 ]

# A group with access: gid= of the mount, and the files writable for the group.
mount -o remount,gid=1000,mode=750 $T
find $T \( -name per_cpu -prune \) -o -exec chgrp 1000 {} + 2> /dev/null || true
chmod g+rx $T $T/events $T/instances $T/options 2> /dev/null || true
user tracecmd list -e sched_sw > rep
grep -q sched:sched_switch rep
user tracecmd stat > rep
# What the group may read only is refused as such, and nothing is half done.
state before
says 'permission denied' user tracecmd record -e sched true
state after
cmp before after
find $T -type f -exec chmod g+w {} + 2> /dev/null || true
find $T -type d -exec chmod g+rwx {} + 2> /dev/null || true
find $T -type f -exec chgrp 1000 {} + 2> /dev/null || true
user tracecmd record -e sched -o theirs.dat ls
user tracecmd report theirs.dat > rep
grep -q sched_ rep
user tracecmd start -e sched:sched_switch
user tracecmd stop
user tracecmd extract -o theirs2.dat
user tracecmd reset
umount $T || true

# Not mounted: root mounts it, others are told.
umount /sys/kernel/debug/tracing 2> /dev/null || true; umount /sys/kernel/debug 2> /dev/null || true
if ! grep -q " $T tracefs" /proc/mounts; then
  says 'tracefs is not mounted.*mount -t tracefs' user tracecmd list -e
  ours list -e sched_sw > rep
  grep -q sched:sched_switch rep
  grep -q " $T tracefs" /proc/mounts
fi

# Names that this kernel does not know.
says 'did you mean sched:sched_switch' ours record -e sched_swich true
says 'did you mean sched' ours record -e shed true
says "Plugin 'nosuch' does not exist (this kernel has:.*function" ours record -p nosuch true
says 'Clock nosuch is not supported (this kernel has:.*mono' ours record -e sched -C nosuch true
says 'no trace option "stacktrac"; did you mean stacktrace' ours record -e sched -O stacktrac true
says 'no_such_fn_.*list -f' ours record -p function -l 'no_such_fn_*' true
mkdir $T/instances/mine
says 'no instance "mien"; did you mean mine' ours stop -B mien
rmdir $T/instances/mine

# A tracer in use: trace_pipe is being read.
cat $T/trace_pipe > /dev/null & pid=$!
usleep 300000
if ours record -q -p function -l do_exit -o busy.dat true > said 2>&1; then :; else grep -q 'busy.*trace_pipe' said || { cat said; exit 1; }; fi
kill $pid; wait $pid || true

# Status of the command, and lost events with what would have held them.
ours record -q -e sched -o s.dat sh -c 'exit 3'
ours record -q --exit-status -e sched -o s.dat sh -c 'exit 3' && exit 1 || [ $? = 3 ]
ours record -e all -b 8 -s 1000000 -o lost.dat sh -c 'for i in 1 2 3 4 5 6; do ls -lR /proc/self > /dev/null 2>&1; done' > lost.out 2> lost.err
grep -q 'events lost' lost.out
grep -q 'lost [0-9]* events; -b [0-9]* would have held them' lost.err
state $OUT/end.ours
fresh
state fresh
cp $OUT/end.ours $OUT/end.ref
