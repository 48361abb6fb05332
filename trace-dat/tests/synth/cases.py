#!/usr/bin/env python3
"""cases.py OUT.dat [--be] [--long4] [CASES.txt]: one event per line of CASES.txt (a print fmt), all with the same fields and payloads."""
import argparse, os, struct, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from synth import *
p = argparse.ArgumentParser()
p.add_argument("out"); p.add_argument("cases"); p.add_argument("--only", type=int, default=0); p.add_argument("--be", action="store_true"); p.add_argument("--long4", action="store_true")
a = p.parse_args()
t = Trace(">" if a.be else "<", 4 if a.long4 else 8)
t.kallsyms, addrs = kallsyms()
t.kallsyms += b"ffffffffa0000000 t last_one\t[mod9]\n"
L = t.long
t.printk = b'0xffffffff82000000 : "text %d\\n"\n0xffffffff82000010 : "plain string"\n0x82000010 : "plain string"\n'
FIELDS = [("int", "a", 4, 1), ("unsigned int", "b", 4, 0), ("unsigned long", "c", L, 0), ("long", "d", L, 1), ("s8", "e", 1, 1), ("u8", "f", 1, 0),
          ("short", "g", 2, 1), ("u16", "h", 2, 0), ("u64", "q", 8, 0), ("s64", "sq", 8, 1), ("char", "str[16]", 16, 1), ("u8", "arr[16]", 16, 0),
          ("u32", "wa[4]", 16, 0), ("unsigned long", "la[3]", 3 * L, 0), ("__data_loc char[]", "ds", 4, 1), ("__data_loc u8[]", "da", 4, 0),
          ("__data_loc u32[]", "dw", 4, 0), ("__rel_loc char[]", "rs", 4, 1), ("__rel_loc u8[]", "ra", 4, 0), ("void *", "ptr", L, 0),
          ("const char *", "cp", L, 0), ("__data_loc unsigned long[]", "mask", 4, 0), ("__data_loc unsigned long[]", "cpus", 4, 0),
          ("struct in6_addr", "v6", 16, 0), ("u8", "v4[4]", 4, 0), ("u8", "mac[6]", 6, 0), ("__data_loc u8[]", "sa4", 4, 0), ("__data_loc u8[]", "sa6", 4, 0),
          ("bool", "flag", 1, 0), ("char", "ch", 1, 1), ("pid_t", "pid", 4, 1), ("__u32", "z", 4, 0), ("s32", "neg", 4, 1), ("__rel_loc unsigned long[]", "rmask", 4, 0),
          ("u16", "ha[3]", 6, 0), ("__data_loc u64[]", "dq", 4, 0), ("__data_loc u16[]", "dh", 4, 0), ("__data_loc char[]", "empty", 4, 1), ("u32", "be4", 4, 0),
          ("__data_loc unsigned long[]", "st", 4, 0), ("unsigned char", "uc", 1, 0), ("long long", "ll", 8, 1), ("unsigned long long", "ull", 8, 0)]
layout, off = [], 8
for ty, nm, sz, sg in FIELDS:
    layout.append((ty, nm, off, sz, sg)); off += sz
fixed_end = off
ftext = "".join(f"\tfield:{ty} {nm};\toffset:{o};\tsize:{sz};\tsigned:{sg};\n" for ty, nm, o, sz, sg in layout)
COMMON = "".join(f"\tfield:{ty} {nm};\toffset:{o};\tsize:{sz};\tsigned:{sg};\n" for ty, nm, o, sz, sg in
                 [("unsigned short", "common_type", 0, 2, 0), ("unsigned char", "common_flags", 2, 1, 0), ("unsigned char", "common_preempt_count", 3, 1, 0), ("int", "common_pid", 4, 4, 1)])


def build(v):
    buf, tail = bytearray(fixed_end - 8), bytearray()
    for ty, nm, o, sz, sg in layout:
        k = nm.split("[")[0]
        x = v.get(k, 0)
        if ty.startswith("__data_loc") or ty.startswith("__rel_loc"):
            d = x if isinstance(x, bytes) else b""
            p = fixed_end + len(tail)
            if ty.startswith("__rel"): p -= o + 4
            tail += d
            w = t.num(len(d) << 16 | p, 4)
        elif isinstance(x, bytes): w = x.ljust(sz, b"\0")[:sz]
        else: w = t.num(x, sz)
        buf[o - 8:o - 8 + sz] = w
    return bytes(buf) + bytes(tail)


def words(size, *v): return b"".join(t.num(x, size) for x in v)


be16 = lambda x: struct.pack(">H", x)
V1 = dict(a=-5, b=4000000000, c=addrs[3] + 4, d=-7, e=-3, f=200, g=-300, h=65000, q=1 << 40, sq=-(1 << 40), str=b"hello", arr=bytes(range(16)),
          wa=words(4, 1, 2, 0xFFFFFFFF, 10), la=words(L, 1, addrs[5], 3), ds=b"dyn str\0", da=b"\1\2\xfe\xff\x20", dw=words(4, 7, 8, 0xdeadbeef), rs=b"rel str\0", ra=b"\xaa\xbb",
          ptr=addrs[7] + 8, cp=0xffffffff82000010, mask=words(L, 0xF5, 1 << (8 * L - 1)), cpus=words(L, 0xF5, 1), v6=bytes.fromhex("20010db8000000000000000000000001"), v4=b"\xc0\xa8\x01\x0a",
          mac=b"\x00\x11\x22\xaa\xbb\xcc", sa4=words(2, 2) + be16(8080) + b"\x7f\0\0\1" + bytes(8), sa6=words(2, 10) + be16(443) + bytes(4) + bytes.fromhex("fe80000000000000000000000000abcd") + bytes(4),
          flag=1, ch=65, pid=1234, z=0, neg=-1, rmask=words(L, 3), ha=words(2, 1, 0xFFFF, 3), dq=words(8, 1, 1 << 63), dh=words(2, 5, 65535), empty=b"", be4=0x0a0b0c0d,
          st=words(L, addrs[1] + 3, addrs[2], 0x10, (1 << 8 * L) - 1, 5), uc=255, ll=-9, ull=99)
V2 = dict(a=3, b=5, c=12, d=9, e=4, f=0, g=7, h=8, q=2, sq=1, str=b"abcdefghijklmnop", arr=b"\xff" * 16, wa=words(4, 0, 0, 0, 0), la=words(L, 0, 0, 0), ds=b"no-nul", da=b"", dw=b"", rs=b"\0",
          ra=b"", ptr=0, cp=0, mask=words(L, 0), cpus=words(L, 0), v6=bytes.fromhex("00000000000000000000ffff0a000001"), v4=b"\0\0\0\0", mac=b"\xff" * 6, sa4=words(2, 1) + b"/path\0", sa6=b"\2", flag=0, ch=0,
          pid=0, z=1, neg=1, rmask=b"", ha=words(2, 0, 0, 0), dq=b"", dh=b"", empty=b"\0", be4=1, st=b"", uc=1, ll=4, ull=0)
P = [build(V1), build(V2)]
n = 0
for line in open(a.cases, encoding="utf-8"):
    line = line.rstrip("\n")
    if not line or line.startswith("##"): continue
    n += 1
    if a.only and a.only != n: continue
    id = 3000 + n
    t.add_format("test", f"name: case_{n}\nID: {id}\nformat:\n{COMMON}\n{ftext}\nprint fmt: {line}\n")
    for x in P: t.add(id, x)
t.write(a.out)
