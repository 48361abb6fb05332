#!/usr/bin/env python3
"""events.py EVENTSDIR OUT.dat [--be] [--long4] [--seed N] [--n N] [--wild]: every event of a kernel with random payloads."""
import argparse, os, random, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from synth import *
p = argparse.ArgumentParser()
p.add_argument("dir"); p.add_argument("out"); p.add_argument("--be", action="store_true"); p.add_argument("--long4", action="store_true")
p.add_argument("--seed", type=int, default=1); p.add_argument("--n", type=int, default=4); p.add_argument("--wild", action="store_true")
p.add_argument("--skip", default="^$", help="regex of system:event to leave out")
a = p.parse_args()
r = random.Random(a.seed)
t = Trace(">" if a.be else "<", 4 if a.long4 else 8)
t.kallsyms, addrs = kallsyms()
seen = set()
evs = []
for s in sorted(os.listdir(a.dir)):
    d = os.path.join(a.dir, s)
    if not os.path.isdir(d): continue
    for e in sorted(os.listdir(d)):
        f = os.path.join(d, e, "format")
        if not os.path.exists(f): continue
        text = open(f, "rb").read().decode("latin1")
        try: name, id, fields = parse(text)
        except Exception as x: print("skip", f, x, file=sys.stderr); continue
        if id in seen or re.search(a.skip, s + ":" + name): continue
        seen.add(id)
        t.add_format(s, text.encode("latin1"))
        evs.append((id, fields))
for id, fields in evs:
    for _ in range(a.n):
        t.add(id, payload(t, fields, r, addrs, a.wild))
t.write(a.out)
