#!/usr/bin/env python3
"""mkdat.py: writes version-6 trace.dat files from event format files and chosen or random payloads.

    mkdat.py -o OUT --tree DIR [--only RE] [--per-event N] [--seed S] [-E little|big] [-L 4|8] [--page N] [--cpus N]
    mkdat.py -o OUT --format FILE... --records FILE.jsonl [...]

--tree DIR    a kernel's files: DIR/events/SYSTEM/EVENT/format, optionally DIR/kallsyms, printk_formats, saved_cmdlines
--format FILE single format files; the system is the name of the directory two levels up (else "test")
--only RE     only events whose SYSTEM/EVENT matches the regular expression (searched)
--per-event N random records for each event (default 3), spread over the CPUs; fields get likely values: small numbers,
              sign limits, symbol addresses, text in char arrays, well-formed __data_loc/__rel_loc with ASCII tails
              Fields that a print fmt uses as a length stay small: the reference reads beyond the record otherwise.
--hostile     also records with lengths and locations that point anywhere, and short records
--records F   JSON lines instead of random records. One object per record:
                {"cpu": 0, "ts": 1000, "event": "sched/sched_switch", "fields": {"prev_pid": 3, "prev_comm": "ls"}}
                {"cpu": 0, "ts": 2000, "event": "x/y", "hex": "0100..."}   whole record; its type is put in
              A field value is a number, a text (char arrays, __data_loc), a list of numbers, or {"hex": ".."} for raw bytes.

As a module: `Format(text)`, `build(path, formats, records, ...)`.
"""
import argparse
import json
import os
import random
import re
import struct
import sys

FIELD = re.compile(r"^\s*field:(?P<decl>[^;]*);\s*offset:(?P<off>\d+);\s*size:(?P<size>\d+);(?:\s*signed:(?P<sign>\d+);)?")


class Field:
    """One `field:` line of an event format."""

    def __init__(self, m):
        self.decl = m["decl"].strip()
        self.offset, self.size, self.signed = int(m["off"]), int(m["size"]), m["sign"] == "1"
        body = re.sub(r"__attribute__\s*\(\(.*?\)\)", "", self.decl)
        self.data_loc, self.rel_loc = "__data_loc" in body, "__rel_loc" in body
        if self.data_loc or self.rel_loc:
            self.name = body.split()[-1]
            self.elem_type = re.sub(r"__(data|rel)_loc|\[\]", "", " ".join(body.split()[:-1])).strip()
            self.array = False
        else:
            arr = re.match(r"^(.*?)(\w+)\s*((?:\[[^\]]*\])+)$", body)
            self.array = bool(arr)
            self.name = arr[2] if arr else re.split(r"[\s*]+", body)[-1]
            self.elem_type = (arr[1] if arr else body[: body.rfind(self.name)]).strip()
        self.text = bool(re.search(r"\bchar\b", self.elem_type)) and "*" not in self.elem_type

    def elem_size(self, long_size=8):
        t = self.elem_type
        if "*" in t or "long" in t and "long long" not in t:
            return long_size
        for rx, n in ((r"long long|64", 8), (r"16|short", 2), (r"\b[us]8\b|char|bool|int8|\b__u8\b", 1), (r"in6_addr", 16)):
            if re.search(rx, t):
                return n
        return 4


class Format:
    """An event format file."""

    def __init__(self, text, system="test"):
        if isinstance(text, str):
            text = text.encode()
        self.bytes, self.system = text, system
        s = text.decode(errors="replace")
        self.name = re.search(r"^name:\s*(\S+)", s, re.M)[1]
        self.id = int(re.search(r"^ID:\s*(\d+)", s, re.M)[1])
        self.fields = []
        for line in s.splitlines():
            m = FIELD.match(line)
            if m:
                self.fields.append(Field(m))
        self.size = max((f.offset + f.size for f in self.fields), default=8)
        self.lengths = self.length_fields(s)

    def length_fields(self, text):
        """Names of fields that the print fmt uses as a length: random numbers there read far beyond the record."""
        names = set()
        for m in re.finditer(r"__print_(?:hex|hex_str|array|hex_dump)\s*\(", text):
            depth, at, args, start = 1, m.end(), [], m.end()
            while at < len(text) and depth:
                c = text[at]
                depth += (c == "(") - (c == ")")
                if depth == 0 or (c == "," and depth == 1):
                    args.append(text[start:at])
                    start = at + 1
                at += 1
            for a in args[1:]:
                names.update(re.findall(r"REC->(\w+)", a))
        if re.search(r"%[-0-9]*\.?\*", text):
            names.update(n for n in re.findall(r"REC->(\w+)", text) if re.search(r"len|size|count|num|nr|bytes", n))
        return names

    def common(self, f):
        return f.name.startswith("common_")


def header_page(page, long_size):
    data = page - 8 - long_size
    return (f"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:{long_size};\tsigned:1;\n"
            f"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\tfield: char data;\toffset:{8 + long_size};\tsize:{data};\tsigned:1;\n").encode()


HEADER_EVENT = (b"# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n\n"
                b"\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n\tdata max type_len  == 28\n")


class SubBuffers:
    """Packs records of one CPU into sub-buffers."""

    def __init__(self, page, big, long_size):
        self.page, self.big, self.long, self.e = page, big, long_size, ">" if big else "<"
        self.out, self.cur, self.first, self.last = [], b"", 0, 0
        self.missed = None

    def word(self, type_len, delta):
        return struct.pack(self.e + "I", (type_len << 27 | delta) if self.big else (type_len | delta << 5))

    def flush(self):
        if self.cur:
            commit = len(self.cur)
            body = self.cur
            room = self.page - 8 - self.long
            if self.missed is not None:
                commit |= 1 << 31
                if self.missed and len(body) + self.long <= room:
                    commit |= 1 << 30
                    body += struct.pack(self.e + ("Q" if self.long == 8 else "I"), self.missed)
                self.missed = None
            head = struct.pack(self.e + "Q" + ("Q" if self.long == 8 else "I"), self.first, commit)
            self.out.append((head + body).ljust(self.page, b"\0"))
        self.cur = b""

    def lost(self, count):
        """Ends the sub-buffer; the next one says that `count` events were lost before it (0: unknown number)."""
        self.flush()
        self.missed = count

    def add(self, ts, payload):
        payload += b"\0" * (-len(payload) % 4)
        need = len(payload) + (4 if 0 < len(payload) <= 112 else 8)
        if self.cur and len(self.cur) + need + 8 > self.page - 8 - self.long:
            self.flush()
        if not self.cur:
            self.first = self.last = ts
        delta = ts - self.last
        if delta >> 27:
            self.cur += self.word(30, delta & ((1 << 27) - 1)) + struct.pack(self.e + "I", (delta >> 27) & 0xFFFFFFFF)
            delta = 0
        self.last = ts
        if 0 < len(payload) <= 112:
            self.cur += self.word(len(payload) // 4, delta) + payload
        else:
            self.cur += self.word(0, delta) + struct.pack(self.e + "I", len(payload) + 4) + payload


def build(path, formats, records, big=False, long_size=8, page=4096, cpus=2, kallsyms=b"", printk=b"", cmdlines=b"", clock=b"local",
          ftrace=None, options=()):
    """Writes PATH. `records`: (cpu, ts, bytes) in time order per CPU, or (cpu, None, lost_count)."""
    e = ">" if big else "<"
    systems = {}
    ft = list(ftrace or [])
    for f in formats:
        if f.system == "ftrace":
            ft.append(f)
        else:
            systems.setdefault(f.system, []).append(f)
    out = bytearray(b"\x17\x08\x44tracing6\0" + bytes([big, long_size]) + struct.pack(e + "I", page))
    for tag, text in ((b"header_page\0", header_page(page, long_size)), (b"header_event\0", HEADER_EVENT)):
        out += tag + struct.pack(e + "Q", len(text)) + text
    out += struct.pack(e + "I", len(ft))
    for f in ft:
        out += struct.pack(e + "Q", len(f.bytes)) + f.bytes
    out += struct.pack(e + "I", len(systems))
    for name, fs in systems.items():
        out += name.encode() + b"\0" + struct.pack(e + "I", len(fs))
        for f in fs:
            out += struct.pack(e + "Q", len(f.bytes)) + f.bytes
    out += struct.pack(e + "I", len(kallsyms)) + kallsyms + struct.pack(e + "I", len(printk)) + printk
    out += struct.pack(e + "Q", len(cmdlines)) + cmdlines + struct.pack(e + "I", cpus) + b"options  \0"
    for ident, data in options:
        out += struct.pack(e + "HI", ident, len(data)) + data
    out += struct.pack(e + "H", 0) + b"flyrecord\0"
    rings = [SubBuffers(page, big, long_size) for _ in range(cpus)]
    for cpu, ts, data in records:
        if ts is None:
            rings[cpu].lost(data)
        else:
            rings[cpu].add(ts, data)
    for r in rings:
        r.flush()
    clock_text = b"[" + clock + b"]\0" if clock else b""
    start = len(out) + 16 * cpus + (8 + len(clock_text))
    at = (start + page - 1) // page * page
    table, place = b"", []
    for r in rings:
        size = len(r.out) * page
        table += struct.pack(e + "QQ", at, size)
        place.append(at)
        at += size
    out += table + struct.pack(e + "Q", len(clock_text)) + clock_text
    with open(path, "wb") as f:
        f.write(out)
        for r, p in zip(rings, place):
            f.seek(p)
            f.write(b"".join(r.out))
        f.truncate(max(at, len(out)))


WORDS = ["ls", "kworker/u8:1", "eth0", "/usr/bin/env", "sda1", "a b", "", "swapper/0", "x" * 40, "100%", "read_pages", "line\n", "tab\there"]


def integer(rng, size, signed, addresses):
    pick = rng.random()
    bits = size * 8
    if pick < 0.25:
        v = rng.randrange(0, 8)
    elif pick < 0.45:
        v = rng.randrange(0, 1 << min(bits, 12))
    elif pick < 0.6:
        v = 1 << rng.randrange(bits)
    elif pick < 0.68:
        v = -rng.randrange(1, 130)
    elif pick < 0.75:
        v = rng.choice([0, (1 << bits) - 1, 1 << (bits - 1), (1 << (bits - 1)) - 1])
    elif pick < 0.87 and size == 8 and addresses:
        v = rng.choice(addresses) + rng.randrange(0, 64)
    else:
        v = rng.getrandbits(bits)
    return v & ((1 << bits) - 1)


def put(buf, f, value, big, long_size, tail_base):
    """Stores one field; returns bytes for the tail (dynamic data)."""
    order = "big" if big else "little"
    raw = None
    if isinstance(value, dict):
        raw = bytes.fromhex(value["hex"])
    elif isinstance(value, str):
        raw = value.encode() + b"\0"
    elif isinstance(value, list):
        n = f.elem_size(long_size)
        raw = b"".join((v & ((1 << n * 8) - 1)).to_bytes(n, order) for v in value)
    if (f.data_loc or f.rel_loc) and raw is not None:
        at = tail_base - (f.offset + 4 if f.rel_loc else 0)
        buf[f.offset:f.offset + 4] = (len(raw) << 16 | at & 0xFFFF).to_bytes(4, order)
        return raw + b"\0" * (-len(raw) % 4)
    if raw is not None:
        raw = raw[:f.size].ljust(f.size, b"\0")
    else:
        raw = (int(value) & ((1 << f.size * 8) - 1)).to_bytes(f.size, order)
    buf[f.offset:f.offset + f.size] = raw
    return b""


def encode(fmt, values, big, long_size):
    """A record of FMT with VALUES by field name; missing fields are zero."""
    buf, tail = bytearray(fmt.size), b""
    base = (fmt.size + 3) // 4 * 4
    for f in fmt.fields:
        if f.name == "common_type":
            put(buf, f, fmt.id, big, long_size, 0)
        elif f.name in values:
            tail += put(buf, f, values[f.name], big, long_size, base + len(tail))
    return bytes(buf).ljust(base, b"\0") + tail if tail else bytes(buf)


def random_values(rng, fmt, pids, addresses, big, long_size):
    values = {}
    for f in fmt.fields:
        if f.name == "common_type":
            continue
        if f.name == "common_pid":
            values[f.name] = rng.choice(pids)
        elif f.name == "common_flags":
            values[f.name] = rng.getrandbits(5)
        elif f.name == "common_preempt_count":
            values[f.name] = rng.choice([0, 0, 1, 2, 17])
        elif f.data_loc or f.rel_loc:
            if f.text and f.signed or f.text and rng.random() < 0.8:
                values[f.name] = rng.choice(WORDS)
            else:
                n = f.elem_size(long_size)
                values[f.name] = [integer(rng, n, False, addresses) for _ in range(rng.choice([0, 1, 2, 5, 8, 20]))]
                if "sockaddr" in f.elem_type or "sockaddr" in f.name:
                    fam = rng.choice([2, 10, 1])
                    values[f.name] = {"hex": (fam.to_bytes(2, "big" if big else "little") + rng.randbytes(26)).hex()}
        elif f.array:
            if f.text and rng.random() < 0.85:
                values[f.name] = rng.choice(WORDS)[: max(f.size - 1, 0)]
            else:
                n = f.elem_size(long_size)
                if n and f.size % n == 0:
                    values[f.name] = [integer(rng, n, False, addresses) for _ in range(f.size // n)]
                else:
                    values[f.name] = {"hex": rng.randbytes(f.size).hex()}
        elif f.name in fmt.lengths:
            values[f.name] = rng.choice([0, 1, 2, 4])
        elif f.size in (1, 2, 4, 8):
            values[f.name] = integer(rng, f.size, f.signed, addresses)
        else:
            values[f.name] = {"hex": rng.randbytes(f.size).hex()}
    return values


def read_tree(tree, only):
    formats = []
    base = os.path.join(tree, "events")
    for system in sorted(os.listdir(base)):
        d = os.path.join(base, system)
        if not os.path.isdir(d):
            continue
        for event in sorted(os.listdir(d)):
            p = os.path.join(d, event, "format")
            if os.path.exists(p) and (system == "ftrace" or not only or re.search(only, f"{system}/{event}")):
                with open(p, "rb") as f:
                    formats.append(Format(f.read(), system))
    return formats


def read_or_empty(*parts):
    try:
        with open(os.path.join(*parts), "rb") as f:
            return f.read()
    except OSError:
        return b""


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("-o", required=True)
    ap.add_argument("--tree")
    ap.add_argument("--format", nargs="*", default=[])
    ap.add_argument("--only")
    ap.add_argument("--per-event", type=int, default=3)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("-E", choices=["little", "big"], default="little")
    ap.add_argument("-L", type=int, choices=[4, 8], default=8)
    ap.add_argument("--page", type=int, default=4096)
    ap.add_argument("--cpus", type=int, default=2)
    ap.add_argument("--clock", default="local")
    ap.add_argument("--records")
    ap.add_argument("--hostile", action="store_true")
    a = ap.parse_args()
    rng, big = random.Random(a.seed), a.E == "big"
    formats = read_tree(a.tree, a.only) if a.tree else []
    for p in a.format:
        with open(p, "rb") as f:
            up = os.path.basename(os.path.dirname(os.path.dirname(os.path.abspath(p))))
            formats.append(Format(f.read(), up if os.path.basename(p) == "format" else "test"))
    kallsyms = read_or_empty(a.tree, "kallsyms") if a.tree else b""
    printk = read_or_empty(a.tree, "printk_formats") if a.tree else b""
    cmdlines = (read_or_empty(a.tree, "saved_cmdlines") if a.tree else b"") or b"1 init\n7 ls\n100 kworker/0:1\n2222 dd\n"
    addresses = []
    for line in kallsyms.splitlines()[:: max(1, kallsyms.count(b"\n") // 500)]:
        word = line.split()
        if len(word) > 2 and int(word[0], 16):
            addresses.append(int(word[0], 16))
    for line in printk.splitlines():
        if line.startswith(b"0x"):
            addresses.append(int(line.split()[0], 16))
    records = []
    if a.records:
        by_name = {f"{f.system}/{f.name}": f for f in formats}
        for line in open(a.records):
            if not line.strip():
                continue
            r = json.loads(line)
            if "lost" in r:
                records.append((r.get("cpu", 0), None, r["lost"]))
                continue
            f = by_name[r["event"]]
            if "hex" in r:
                data = bytearray.fromhex(r["hex"])
                data[0:2] = f.id.to_bytes(2, "big" if big else "little")
            else:
                data = encode(f, r.get("fields", {}), big, a.L)
            records.append((r.get("cpu", 0), r["ts"], bytes(data)))
    else:
        pids, ts = [0, 1, 7, 100, 2222, 99999], 1_000_000_000
        for f in formats:
            if f.system == "ftrace" and a.only and not re.search(a.only, f"ftrace/{f.name}"):
                continue
            if f.size > a.page // 2:
                print(f"left out {f.system}/{f.name}: {f.size} bytes", file=sys.stderr)
                continue
            for n in range(a.per_event):
                ts += rng.choice([1, 300, 5_000, 1_000_000, 140_000_000])
                data = bytearray(encode(f, random_values(rng, f, pids, addresses, big, a.L), big, a.L))
                if a.hostile and n % 2:
                    if rng.random() < 0.3:
                        data = data[: max(8, rng.randrange(len(data) + 1))]
                    for x in f.fields:
                        if (x.data_loc or x.rel_loc) and x.offset + 4 <= len(data):
                            data[x.offset:x.offset + 4] = rng.randbytes(4)
                records.append((rng.randrange(a.cpus), ts, bytes(data)))
    build(a.o, formats, records, big, a.L, a.page, a.cpus, kallsyms, printk, cmdlines, a.clock.encode())
    print(f"{a.o}: {len(records)} records of {len(formats)} events", file=sys.stderr)


if __name__ == "__main__":
    main()
