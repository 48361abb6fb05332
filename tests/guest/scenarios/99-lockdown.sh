# kernels: 7.2
# The kernel is locked down (to the next boot, so this comes last): every control file is refused, with a sentence that says why.
. /lib.sh
cd /tmp
exec 2>&1
ours record -q -e sched -o l.dat true
[ -d /sys/kernel/security/. ] && mount -t securityfs none /sys/kernel/security 2> /dev/null || true
if [ -e /sys/kernel/security/lockdown ]; then
  echo confidentiality > /sys/kernel/security/lockdown
  if ours record -e sched -o m.dat true > said 2>&1; then echo 'records under lockdown'; cat said; exit 1; fi
  cat said
  grep -q 'lockdown' said
  [ $(wc -l < said) -le 6 ]
  [ ! -e m.dat ]
  ours list -e > said 2>&1 || grep -q lockdown said
fi
ours report l.dat > l.txt
[ $(wc -l < l.txt) -gt 1 ]
echo 'files can be read' > $OUT/x.ours; cp $OUT/x.ours $OUT/x.ref
