# Three instances, each with something else.
. /lib.sh
for who in ours ref; do
  fresh
  $who record -B one -e sched -B two -p function -l 'vfs_*' -B three -e syscalls:sys_enter_openat -o $OUT/$who.dat ls -l / > $OUT/$who.log 2>&1
  state $OUT/state.$who
done
