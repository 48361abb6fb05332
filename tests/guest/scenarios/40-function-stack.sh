# The function tracer with a filter and kernel stacks; version 6; every compression.
. /lib.sh
for who in ours ref; do
  fresh
  $who record -p function -l vfs_read --func-stack --file-version 6 -o $OUT/$who-v6.dat wc /init > $OUT/$who.log 2>&1
  fresh
  $who record -e sched:sched_switch -T --compression none -o $OUT/$who-none.dat ls / >> $OUT/$who.log 2>&1
  fresh
  $who record -e sched:sched_switch -f 'prev_pid > 0' -C mono --compression zlib -o $OUT/$who-zlib.dat ls / >> $OUT/$who.log 2>&1
  state $OUT/state.$who
done
