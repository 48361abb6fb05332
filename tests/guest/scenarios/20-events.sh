# Events of two systems with a command, all CPUs.
. /lib.sh
for who in ours ref; do
  fresh
  $who record -e sched -e irq -o $OUT/$who.dat sh -c '. /lib.sh; work' > $OUT/$who.log 2>&1
  state $OUT/state.$who
done
