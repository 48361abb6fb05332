# Every event of the kernel for a moment.
. /lib.sh
for who in ours ref; do
  fresh
  $who record -e all -o $OUT/$who.dat sh -c '. /lib.sh; work' > $OUT/$who.log 2>&1
  state $OUT/state.$who
done
