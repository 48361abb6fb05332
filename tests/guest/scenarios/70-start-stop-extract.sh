# The kernel's own buffer: start, stop, extract, with clock and sizes; then reset.
. /lib.sh
for who in ours ref; do
  fresh
  $who start -e sched -e timer -C boot -b 64 > $OUT/$who.log 2>&1
  state $OUT/started.$who
  work
  $who stop >> $OUT/$who.log 2>&1
  $who extract -o $OUT/$who.dat >> $OUT/$who.log 2>&1
  state $OUT/extracted.$who
  $who reset >> $OUT/$who.log 2>&1
  state $OUT/reset.$who
done
