"""Writes synthetic trace.dat files (version 6, uncompressed) with chosen event formats and payloads."""
import os, random, re, struct

PAGE = 4096


class Field:
    def __init__(self, decl, offset, size, signed):
        self.decl, self.offset, self.size, self.signed = decl, offset, size, signed
        m = re.match(r"(.*?)(\w+)\s*(\[[^\]]*\])?$", decl)
        self.type, self.name, self.array = (m.group(1).strip(), m.group(2), m.group(3)) if m else (decl, "", None)
        self.dyn = self.type.startswith("__data_loc")
        self.rel = self.type.startswith("__rel_loc")


def parse(text):
    """(name, id, own fields) of a format text."""
    name = re.search(r"^name: (.*)$", text, re.M).group(1)
    id = int(re.search(r"^ID: (\d+)$", text, re.M).group(1))
    fields = []
    for m in re.finditer(r"^\tfield(?: special)?:(.*?);\s*offset:(\d+);\s*size:(\d+);(?:\s*signed:(\d+);)?", text, re.M):
        fields.append(Field(m.group(1), int(m.group(2)), int(m.group(3)), m.group(4) == "1"))
    return name, id, [f for f in fields if not f.name.startswith("common_")]


def header_page(long):
    return (f"\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
            f"\tfield: local_t commit;\toffset:8;\tsize:{long};\tsigned:1;\n"
            f"\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n"
            f"\tfield: char data;\toffset:{8 + long};\tsize:{PAGE - 8 - long};\tsigned:1;\n").encode()


HEADER_EVENT = (b"# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n\n"
                b"\tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n\tdata max type_len  == 28\n")


class Trace:
    def __init__(self, endian="<", long=8):
        self.e, self.long = endian, long
        self.systems = {}                     # name -> [text]
        self.records = []                     # bytes with common fields
        self.kallsyms = b""
        self.printk = b""
        self.cmdlines = b"1 init\n42 some-task\n"

    def add_format(self, system, text):
        self.systems.setdefault(system, []).append(text.encode() if isinstance(text, str) else text)

    def add(self, id, payload, pid=42, flags=0, preempt=0):
        d = struct.pack(self.e + "HBBi", id, flags, preempt, pid) + payload
        self.records.append(d + bytes(-len(d) % 4))

    def num(self, v, size):
        return (v & (1 << 8 * size) - 1).to_bytes(size, "little" if self.e == "<" else "big")

    def pages(self):
        room = PAGE - 8 - self.long
        out, data, ts = [], b"", 0
        start = 1000

        def flush():
            nonlocal data, start
            if data:
                out.append((struct.pack(self.e + "Q", start) + self.num(len(data), self.long) + data).ljust(PAGE, b"\0"))
            data = b""
        ts = 1000
        for r in self.records:
            ts += 1000
            first = not data
            n = len(r)
            need = 4 + n + (4 if n > 112 else 0)
            if len(data) + need > room:
                flush()
                first = True
            if first:
                start = ts
            delta = 0 if first else 1000
            tl = n // 4 if n <= 112 else 0
            h = (delta << 5 | tl) if self.e == "<" else (tl << 27 | delta)
            data += struct.pack(self.e + "I", h)
            if not tl:
                data += struct.pack(self.e + "I", n + 4)
            data += r
        flush()
        return b"".join(out)

    def write(self, path):
        e = self.e
        b = b"\x17\x08\x44tracing6\0" + bytes([e == ">", self.long]) + struct.pack(e + "I", PAGE)
        hp = header_page(self.long)
        b += b"header_page\0" + struct.pack(e + "Q", len(hp)) + hp + b"header_event\0" + struct.pack(e + "Q", len(HEADER_EVENT)) + HEADER_EVENT
        ft = self.systems.get("ftrace", [])
        b += struct.pack(e + "I", len(ft)) + b"".join(struct.pack(e + "Q", len(t)) + t for t in ft)
        rest = [(s, t) for s, t in self.systems.items() if s != "ftrace"]
        b += struct.pack(e + "I", len(rest))
        for s, t in rest:
            b += s.encode() + b"\0" + struct.pack(e + "I", len(t)) + b"".join(struct.pack(e + "Q", len(x)) + x for x in t)
        b += struct.pack(e + "I", len(self.kallsyms)) + self.kallsyms + struct.pack(e + "I", len(self.printk)) + self.printk
        b += struct.pack(e + "Q", len(self.cmdlines)) + self.cmdlines + struct.pack(e + "I", 1)
        b += b"options  \0" + struct.pack(e + "H", 0) + b"flyrecord\0"
        pos = len(b) + 16
        start = (pos + PAGE - 1) // PAGE * PAGE
        pages = self.pages()
        b += struct.pack(e + "QQ", start, len(pages))
        b = b.ljust(start, b"\0") + pages
        open(path, "wb").write(b)


def kallsyms(n=400, seed=5):
    r = random.Random(seed)
    addr, out, addrs = 0xFFFFFFFF81000000, [], []
    for i in range(n):
        addr += r.choice([0x10, 0x40, 0x100, 0x1230])
        addrs.append(addr)
        out.append(f"{addr:x} {r.choice('tTdD')} sym_{i}_{r.choice(['open', 'read', 'do_x'])}" + ("\t[mod%d]" % (i % 3) if i % 7 == 0 else ""))
    return ("\n".join(out) + "\n").encode(), addrs


WORDS = ["bash", "eth0", "hello world", "", "a", "/usr/bin/some/longer path", "x%dy", "kworker/0:1", "tab\tx", "caf\xc3\xa9", "q\"uote", "ctl\x01x"]


def payload(t, fields, r, addrs, wild=False):
    """Random bytes that fit the fields; `wild` allows dynamic fields that point anywhere."""
    end = max((f.offset + f.size for f in fields), default=8)
    buf = bytearray(end)
    tail = bytearray()
    end4 = end
    for f in fields:
        size = f.size

        def num(n, signed=False):
            k = r.randrange(9)
            if k < 3: v = r.randrange(0, 10)
            elif k == 3: v = -r.randrange(1, 200)
            elif k == 4: v = r.getrandbits(8 * n)
            elif k == 5: v = 1 << r.randrange(8 * n)
            elif k == 6: v = r.randrange(0, 70000)
            elif k == 7: v = r.choice(addrs) + r.randrange(0, 8)
            else: v = r.getrandbits(8 * n) & r.getrandbits(8 * n) & r.getrandbits(8 * n)
            return t.num(v, n)

        base = f.type + (f.array or "")
        if not f.dyn and not f.rel and f.array is None and size in (1, 2, 4, 8) and re.search(r"len|size|count|num|nr|cnt|items|bytes|nbytes|argc|bits|_l$", f.name):
            buf[f.offset:f.offset + size] = t.num(r.choice([0, 1, 2, 4]), size)
            continue
        if f.dyn or f.rel:
            esz = 1
            ty = f.type.split(None, 1)[1] if " " in f.type else ""
            if re.search(r"char|u8|s8", ty): esz = 1
            elif re.search(r"64|long", ty): esz = 8 if "64" in ty else t.long
            elif re.search(r"16|short", ty): esz = 2
            elif re.search(r"32|int", ty): esz = 4
            if esz == 1 and (r.random() < 0.8):
                d = r.choice(WORDS).encode("latin1") + b"\0"
            else:
                d = b"".join(num(esz) for _ in range(r.randrange(0, 6)))
            if 'char' in ty and not d.endswith(b'\0'): d += b'\0'
            off = end4 + len(tail)
            if f.rel: loc = off - (f.offset + f.size)
            else: loc = off
            ln = len(d)
            if wild and r.random() < 0.3:
                loc, ln = r.choice([(r.getrandbits(16), r.getrandbits(16)), (loc, r.getrandbits(12)), (loc, 0), (r.getrandbits(8), ln)])
            tail += d + bytes(r.choice([0, 0, -len(d) % 4]))
            buf[f.offset:f.offset + size] = t.num((ln & 0xffff) << 16 | (loc & 0xffff), size)
        elif f.array is not None and size:
            n = f.array.strip("[]")
            cnt = int(n) if n.isdigit() and int(n) else 0
            esz = size // cnt if cnt and size % cnt == 0 else 1
            if esz == 1 and r.random() < 0.7:
                w = r.choice(WORDS).encode("latin1")
                d = (w + b"\0" + (bytes(size) if r.random() < .5 else bytes(r.getrandbits(8) for _ in range(size))))[:size]
                if r.random() < 0.1 and f is not fields[-1]: d = (b"abcdefghij" * (size // 10 + 1))[:size]
            elif esz in (1, 2, 4, 8): d = b"".join(num(esz) for _ in range(size // esz))
            else: d = bytes(r.getrandbits(8) for _ in range(size))
            buf[f.offset:f.offset + size] = d
        elif size:
            buf[f.offset:f.offset + size] = (num(size) + bytes(size))[:size] if size in (1, 2, 4, 8) else bytes(r.getrandbits(8) for _ in range(size))
        else:   # open array
            tail += b"".join(num(t.long if "long" in f.type else 4) for _ in range(r.randrange(0, 6)))
    return bytes(buf[8:]) + bytes(tail)
