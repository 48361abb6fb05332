# function_graph with a command: the file is whole, and the kernel is left as the reference leaves it.
. /lib.sh
fresh
state $OUT/before
for who in ours ref; do
  fresh
  $who record -p function_graph -g 'do_sys_openat2' -g 'vfs_read' --max-graph-depth 5 -o $OUT/$who.dat ls /proc/self > $OUT/$who.log 2>&1
  state $OUT/state.$who
done
