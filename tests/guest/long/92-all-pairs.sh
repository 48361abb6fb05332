# All pairings of our and the reference's client and listener, both protocols, TCP and UDP, events and the function graph.
# TRACECMD_SCENARIO_DIR=long runs it; scenarios/92-remote-pairs.sh is the short choice of every run.
. /lib.sh
for carrier in tcp udp; do
  for clients in ours:ours ours:ref ref:ours ref:ref; do
    client=${clients%:*} listener=${clients#*:}
    for version in V3 V1; do
      # The reference has no way to ask for V1 where V3 is spoken.
      [ $clients = ref:ref ] && [ $version = V1 ] && continue
      before=$faults
      pair "$client" "$listener" $version $carrier events -e sched -e raw_syscalls
      pair "$client" "$listener" $version $carrier graph -p function_graph --max-graph-depth 2
      # Only to compare with: its listener gives a client up that needs more than five seconds to set a tracer.
      [ $clients != ref:ref ] || faults=$before
    done
  done
done
exit $faults
