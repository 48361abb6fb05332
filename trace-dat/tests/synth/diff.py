#!/usr/bin/env python3
"""diff.py REFERENCE OURS FILE [option...]: compares the text of every record of a synthetic file.
REFERENCE is trace-cmd; OURS is the example dump_events, or tracecmd itself when its name is tracecmd."""
import os, re, subprocess, sys
ref, ours, file, opts = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]
limit = int(os.environ.get("LIMIT", "30"))


def split(text, rx):
    out, cur = [], None
    for line in text.split(b"\n"):
        m = re.match(rx, line)
        if m:
            cur = [m.group(2), m.group(3)]
            out.append(cur)
        elif cur: cur[1] += b"\n" + line
    return [(n, t.rstrip(b"\n")) for n, t in out]


r = subprocess.run([ref, "report"] + opts + [file], capture_output=True, timeout=600)
rx = rb"^[^\n]*?\d+ +\[?000[^:]*? (\d+\.\d+): +([\w.-]+): *(.*)$" if "-l" not in opts else rb"^.*? (\d+\.\d+): +([\w.-]+): *(.*)$"
a = split(r.stdout, rx)
if os.path.basename(ours).startswith("tracecmd"):
    o = subprocess.run([ours, "report"] + opts + [file], capture_output=True)
    b = split(o.stdout, rx)
else:
    o = subprocess.run([ours] + [x for x in opts if x != "-l"] + [file], capture_output=True)
    b = split(o.stdout, rb"^(\d+\.\d+): +([\w.-]+): *(.*)$")
if r.returncode: print("reference exit", r.returncode, "after", a[-1][0].decode() if a else "-")
if o.returncode: print("ours exit", o.returncode, o.stderr.decode()[-300:])
bad, names = 0, {}
for i, (x, y) in enumerate(zip(a, b)):
    if x == y: continue
    bad += 1
    names[x[0].decode()] = names.get(x[0].decode(), 0) + 1
    if names[x[0].decode()] <= 2 and len(names) <= limit:
        s, t = x[1], y[1]
        k = next((k for k in range(min(len(s), len(t))) if s[k] != t[k]), min(len(s), len(t)))
        k = max(0, k - 30) if len(s) > 120 else 0
        print(f"{x[0].decode()}:\n  ref  {s[k:k+200]!r}\n  ours {t[k:k+200]!r}" + ("" if x[0] == y[0] else f" NAME {y[0]}"))
print(f"{len(a)} / {len(b)} records, {bad} differ in {len(names)} events", list(names.items())[:60])
sys.exit(bad != 0 or len(a) != len(b))
