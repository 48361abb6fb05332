# Runs the rows of the tables: `row NAME WORDS SETUP RUN EXPECT`. Results: $OUT/NAME.{ref,ours}/{after,during,stdout,stderr,status,expect}.
T=/sys/kernel/tracing
export T
OUT=/out/rows
export OUT
printf '#!/bin/sh\nkernel-state dump > "$DURING"\n' > /bin/dump-during
# A recording in the background has switched its event on, and has had a while for the rest.
printf '#!/bin/sh\nuntil [ "$(cat $T/events/sched/sched_switch/enable)" = 1 ]; do sleep 0.1; done; sleep 2\n' > /bin/begun
chmod +x /bin/dump-during /bin/begun

# Ours under the reference's name.
mkdir -p /link
ln -s /bin/tracecmd /link/trace-cmd

one() {
  dir=$OUT/$1.$2
  mkdir -p "$dir"
  cd "$dir" || return
  export DURING=$dir/during STATUS=$dir/status STDOUT=$dir/stdout
  case $2 in ref) C=trace-cmd PATH=/bin:/usr/bin ;; ours) C=tracecmd PATH=/link:/bin:/usr/bin ;; esac
  export C PATH
  timeout -s KILL 90 sh -c "$3" > stdout 2> stderr < /dev/null
  echo $? > status
  # What was killed leaves recorders, which would keep the tracer busy for the next rows.
  [ "$(cat status)" != 137 ] || killall -9 trace-cmd tracecmd 2> /dev/null
  kernel-state dump > after
}

row() {
  s=$(date +%s)
  # Where nothing is compared the reference does not run: some of these rows are about its never coming to an end.
  [ -z "$5" ] && all='ref ours' || all=ours
  for who in $all; do
    case " $2 " in
      *' same '*) [ $who = "${all%% *}" ] && kernel-state fresh && eval "$3" ;;
      *) kernel-state fresh; eval "$3" ;;
    esac > /dev/null 2>&1
    one "$1" $who "$4"
  done
  if [ -n "$5" ]; then
    PATH=/link:$PATH sh -xc "$5" > expect.out 2>&1
    echo $? > expect
  fi
  # Recordings that are not looked at would only fill the memory.
  case " $2 " in *' dat '*) ;; *) rm -f "$OUT/$1".*/*.dat ;; esac
  rm -f "$OUT/$1".*/*.cpu*
  echo "$1 $(($(date +%s) - s)) s"
  echo "$1" > /dev/console
}
