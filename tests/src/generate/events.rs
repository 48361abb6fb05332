//! Made-up events of a kernel: their formats for any byte order and long size, and scripts of records that belong together.

use trace_dat::{Endian, LongSize, write::Metadata};

use super::{Plan, script::Script};

/// What kind of load a file shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// Tasks wake each other and are switched to.
    Sched,
    /// Tasks call the system.
    Syscalls,
    /// The function tracer.
    Function,
    /// The function_graph tracer: nested calls.
    Graph,
    /// All but the tracers, and memory and interrupts.
    Mixed,
}

/// The mixes by name.
pub const MIXES: [(&str, Mix); 5] = [
    ("sched", Mix::Sched),
    ("syscalls", Mix::Syscalls),
    ("function", Mix::Function),
    ("graph", Mix::Graph),
    ("mixed", Mix::Mixed),
];

/// Records of a script before it begins again.
const STEPS: usize = 4096;
/// Tasks of each CPU, beside the idle one.
const TASKS: u32 = 24;
/// Where the functions begin; each is [`FUNCTION`] bytes long.
const TEXT: u64 = 0xffff_ffff_8100_0000;
const FUNCTION: u64 = 0x100;
/// Functions that events name.
const FUNCTIONS: u64 = 500;

/// How the bytes of a field are laid out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    /// Whole number of so many bytes.
    Int(usize),
    /// As long as a `long`.
    Long,
    /// So many of them.
    Longs(usize),
    /// `char [16]`.
    Comm,
    /// `__data_loc char[]`.
    Text,
}

/// An event: `fields` are C type, name and layout; a blank line stands before the print fmt.
struct Def {
    system: &'static str,
    name: &'static str,
    id: u16,
    fields: &'static [(&'static str, &'static str, Type)],
    print_fmt: &'static str,
}

use Type::{Comm, Int, Long, Longs, Text};

const FUNCTION_EVENT: Def = Def {
    system: "ftrace",
    name: "function",
    id: 1,
    fields: &[("unsigned long", "ip", Long), ("unsigned long", "parent_ip", Long)],
    print_fmt: r#"" %ps <-- %ps", (void *)REC->ip, (void *)REC->parent_ip"#,
};
const ENTRY: Def = Def {
    system: "ftrace",
    name: "funcgraph_entry",
    id: 11,
    fields: &[("unsigned long", "func", Long), ("int", "depth", Int(4))],
    print_fmt: r#""--> %ps (%d)", (void *)REC->func, REC->depth"#,
};
const EXIT: Def = Def {
    system: "ftrace",
    name: "funcgraph_exit",
    id: 10,
    fields: &[
        ("unsigned long", "func", Long),
        ("int", "depth", Int(4)),
        ("unsigned int", "overrun", Int(4)),
        ("unsigned long long", "calltime", Int(8)),
        ("unsigned long long", "rettime", Int(8)),
    ],
    print_fmt: r#""<-- %ps (%d) (start: %llx  end: %llx) over: %d", (void *)REC->func, REC->depth, REC->calltime, REC->rettime, REC->depth"#,
};
const SWITCH: Def = Def {
    system: "sched",
    name: "sched_switch",
    id: 316,
    fields: &[
        ("char", "prev_comm[16]", Comm),
        ("pid_t", "prev_pid", Int(4)),
        ("int", "prev_prio", Int(4)),
        ("long", "prev_state", Long),
        ("char", "next_comm[16]", Comm),
        ("pid_t", "next_pid", Int(4)),
        ("int", "next_prio", Int(4)),
    ],
    print_fmt: r#""prev_comm=%s prev_pid=%d prev_prio=%d prev_state=%s%s ==> next_comm=%s next_pid=%d next_prio=%d", REC->prev_comm, REC->prev_pid, REC->prev_prio, (REC->prev_state & 0xff) ? __print_flags(REC->prev_state & 0xff, "|", { 0x01, "S" }, { 0x02, "D" }, { 0x04, "T" }, { 0x08, "t" }, { 0x10, "X" }, { 0x20, "Z" }, { 0x40, "P" }, { 0x80, "I" }) : "R", REC->prev_state & 0x100 ? "+" : "", REC->next_comm, REC->next_pid, REC->next_prio"#,
};
const WAKEUP: Def = Def {
    system: "sched",
    name: "sched_wakeup",
    id: 318,
    fields: &[
        ("char", "comm[16]", Comm),
        ("pid_t", "pid", Int(4)),
        ("int", "prio", Int(4)),
        ("int", "target_cpu", Int(4)),
    ],
    print_fmt: r#""comm=%s pid=%d prio=%d target_cpu=%03d", REC->comm, REC->pid, REC->prio, REC->target_cpu"#,
};
const SYS_ENTER: Def = Def {
    system: "raw_syscalls",
    name: "sys_enter",
    id: 348,
    fields: &[("long", "id", Long), ("unsigned long", "args[6]", Longs(6))],
    print_fmt: r#""NR %ld (%lx, %lx, %lx, %lx, %lx, %lx)", REC->id, REC->args[0], REC->args[1], REC->args[2], REC->args[3], REC->args[4], REC->args[5]"#,
};
const SYS_EXIT: Def = Def {
    system: "raw_syscalls",
    name: "sys_exit",
    id: 347,
    fields: &[("long", "id", Long), ("long", "ret", Long)],
    print_fmt: r#""NR %ld = %ld", REC->id, REC->ret"#,
};
const KMALLOC: Def = Def {
    system: "kmem",
    name: "kmalloc",
    id: 540,
    fields: &[
        ("unsigned long", "call_site", Long),
        ("const void *", "ptr", Long),
        ("size_t", "bytes_req", Long),
        ("size_t", "bytes_alloc", Long),
        ("unsigned long", "gfp_flags", Long),
        ("int", "node", Int(4)),
    ],
    print_fmt: r#""call_site=%pS ptr=%p bytes_req=%zu bytes_alloc=%zu gfp_flags=%s node=%d", (void *)REC->call_site, REC->ptr, REC->bytes_req, REC->bytes_alloc, (REC->gfp_flags) ? __print_flags(REC->gfp_flags, "|", { 0xcc0, "GFP_KERNEL" }, { 0x820, "GFP_ATOMIC" }, { 0x100, "__GFP_ZERO" }) : "none", REC->node"#,
};
const IRQ: Def = Def {
    system: "irq",
    name: "irq_handler_entry",
    id: 155,
    fields: &[("int", "irq", Int(4)), ("__data_loc char[]", "name", Text)],
    print_fmt: r#""irq=%d name=%s", REC->irq, __get_str(name)"#,
};
const IRQ_EXIT: Def = Def {
    system: "irq",
    name: "irq_handler_exit",
    id: 154,
    fields: &[("int", "irq", Int(4)), ("int", "ret", Int(4))],
    print_fmt: r#""irq=%d ret=%s", REC->irq, REC->ret ? "handled" : "unhandled""#,
};

const ALL: [&Def; 10] =
    [&FUNCTION_EVENT, &ENTRY, &EXIT, &SWITCH, &WAKEUP, &SYS_ENTER, &SYS_EXIT, &KMALLOC, &IRQ, &IRQ_EXIT];

/// A value of a field.
#[derive(Clone, Copy)]
enum Value<'a> {
    Num(u64),
    Str(&'a str),
}

/// The recording machine.
#[derive(Clone, Copy)]
struct Machine {
    endian: Endian,
    long_size: LongSize,
}

impl Machine {
    /// Size, alignment.
    fn size(self, t: Type) -> (usize, usize) {
        let long = self.long_size.bytes();
        match t {
            Int(n) => (n, n),
            Long => (long, long),
            Longs(n) => (n * long, long),
            Comm => (16, 1),
            Text => (4, 4),
        }
    }

    /// Offset and size of each field, and where the last one ends.
    fn layout(self, def: &Def) -> (Vec<(usize, usize)>, usize) {
        let mut at = 8usize;
        let mut fields = Vec::new();
        for (_, _, t) in def.fields {
            let (size, align) = self.size(*t);
            at = at.next_multiple_of(align);
            fields.push((at, size));
            at += size;
        }
        (fields, at)
    }

    fn format(self, def: &Def) -> String {
        let mut text = format!("name: {}\nID: {}\nformat:\n", def.name, def.id);
        let mut field = |decl: &str, at: usize, size: usize, signed: bool| {
            text += &format!("\tfield:{decl};\toffset:{at};\tsize:{size};\tsigned:{};\n", u8::from(signed));
        };
        field("unsigned short common_type", 0, 2, false);
        field("unsigned char common_flags", 2, 1, false);
        field("unsigned char common_preempt_count", 3, 1, false);
        field("int common_pid", 4, 4, true);
        text += "\n";
        let mut field = |decl: &str, at: usize, size: usize, signed: bool| {
            text += &format!("\tfield:{decl};\toffset:{at};\tsize:{size};\tsigned:{};\n", u8::from(signed));
        };
        for ((c_type, name, _), (at, size)) in def.fields.iter().zip(self.layout(def).0) {
            field(&format!("{c_type} {name}"), at, size, matches!(*c_type, "int" | "long" | "pid_t"));
        }
        text + &format!("\nprint fmt: {}\n", def.print_fmt)
    }

    fn put(self, record: &mut [u8], at: usize, size: usize, v: u64) {
        match size {
            2 => record[at..at + 2].copy_from_slice(&self.endian.from_u16(v as u16)),
            4 => record[at..at + 4].copy_from_slice(&self.endian.from_u32(v as u32)),
            8 => record[at..at + 8].copy_from_slice(&self.endian.from_u64(v)),
            _ => unreachable!("numbers have 2, 4 or 8 bytes"),
        }
    }

    fn record(self, def: &Def, flags: u8, pid: u32, values: &[Value<'_>]) -> Vec<u8> {
        let (layout, end) = self.layout(def);
        let mut record = vec![0; end];
        self.put(&mut record, 0, 2, def.id.into());
        record[2] = flags;
        record[3] = flags & 1;
        self.put(&mut record, 4, 4, pid.into());
        let mut values = values.iter();
        let mut value = || values.next().copied().unwrap_or(Value::Num(0));
        for ((_, _, t), (at, size)) in def.fields.iter().zip(layout) {
            if let Longs(n) = t {
                for i in 0..*n {
                    if let Value::Num(v) = value() {
                        self.put(&mut record, at + i * size / n, size / n, v);
                    }
                }
                continue;
            }
            match value() {
                Value::Num(v) => self.put(&mut record, at, size, v),
                Value::Str(s) if *t == Comm => record[at..at + s.len()].copy_from_slice(s.as_bytes()),
                Value::Str(s) => {
                    let loc = (s.len() as u64 + 1) << 16 | record.len() as u64;
                    self.put(&mut record, at, 4, loc);
                    record.extend_from_slice(s.as_bytes());
                    record.push(0);
                }
            }
        }
        record
    }
}

fn task_name(pid: u32) -> String {
    const NAMES: [&str; 6] = ["bash", "kworker", "nginx", "rcu_preempt", "postgres", "sshd"];
    match pid {
        0 => "swapper".into(),
        _ => format!("{}/{}", NAMES[pid as usize % NAMES.len()], pid % 100),
    }
}

/// Pid of the `n`th task of a CPU.
fn pid(cpu: u32, n: u32) -> u32 {
    if n == 0 { 0 } else { 100 + cpu % 64 * TASKS + n }
}

/// Metadata and records for a plan.
pub fn script(plan: &Plan, mix: Mix) -> (Metadata, Script) {
    let machine = Machine { endian: plan.endian, long_size: plan.long_size };
    let text = match plan.long_size {
        LongSize::Four => 0xc100_0000,
        LongSize::Eight => TEXT,
    };
    let mut meta = super::metadata(plan);
    let (ftrace, others): (Vec<&Def>, Vec<&Def>) = ALL.into_iter().partition(|d| d.system == "ftrace");
    meta.ftrace_events(&ftrace.iter().map(|d| machine.format(d)).collect::<Vec<_>>());
    let mut systems: Vec<(&str, Vec<String>)> = Vec::new();
    for def in others {
        match systems.iter_mut().find(|(name, _)| *name == def.system) {
            Some((_, formats)) => formats.push(machine.format(def)),
            None => systems.push((def.system, vec![machine.format(def)])),
        }
    }
    meta.event_formats(&systems);
    let width = plan.long_size.bytes() * 2;
    let symbols: String = (0..FUNCTIONS + u64::from(plan.symbols))
        .map(|n| format!("{:0width$x} t {}\n", text + n * FUNCTION, function_name(n)))
        .collect();
    meta.kallsyms(symbols.as_bytes());
    let pids = (0..plan.cpus.min(64)).flat_map(|cpu| (1..=TASKS).map(move |n| pid(cpu, n)));
    meta.cmdlines(pids.map(|p| format!("{p} {}\n", task_name(p))).collect::<String>().as_bytes());

    let mut script = Script::new(plan.endian, plan.long_size);
    for cpu in 0..plan.cpus.min(64) {
        script.next_cpu();
        let mut load = Load {
            machine,
            text,
            cpu,
            task: 0,
            depth: 0,
            called: Vec::new(),
            rng: fastrand::Rng::with_seed(plan.seed.wrapping_add(u64::from(cpu) << 32)),
        };
        for _ in 0..STEPS {
            let (delta, record) = load.next(mix);
            script.push(delta, &record);
        }
    }
    (meta, script)
}

fn function_name(n: u64) -> String {
    const VERBS: [&str; 5] = ["do", "vfs", "try_to", "__get", "update"];
    const THINGS: [&str; 5] = ["inode", "page_cache", "task", "rq_clock", "sock"];
    format!("{}_{}_{n}", VERBS[n as usize % 5], THINGS[n as usize / 5 % 5])
}

/// What goes on on a CPU.
struct Load {
    machine: Machine,
    text: u64,
    cpu: u32,
    /// Which task runs.
    task: u32,
    depth: u64,
    /// Functions that were entered (function_graph), or the system call that is under way.
    called: Vec<u64>,
    rng: fastrand::Rng,
}

impl Load {
    fn function(&mut self) -> u64 {
        self.text + self.rng.u64(..FUNCTIONS) * FUNCTION
    }

    /// Distance to the record before, and the record.
    fn next(&mut self, mix: Mix) -> (u64, Vec<u8>) {
        let kind = match mix {
            Mix::Mixed => match self.rng.u32(..10) {
                0..3 => Mix::Sched,
                3..7 => Mix::Syscalls,
                _ => Mix::Mixed,
            },
            other => other,
        };
        let running = pid(self.cpu, self.task);
        let delta = 200 + self.rng.u64(..2000);
        let m = self.machine;
        let record = match kind {
            Mix::Sched => return (delta, self.sched(running)),
            Mix::Syscalls => self.syscall(running),
            Mix::Graph => return self.graph(running),
            Mix::Function => {
                let (ip, parent) = (self.function() + 4, self.function() + 0x20);
                m.record(&FUNCTION_EVENT, 0, running, &[Value::Num(ip), Value::Num(parent)])
            }
            Mix::Mixed if self.rng.bool() => {
                let size = 1 << self.rng.u32(3..13);
                let values = [
                    self.function() + 0x13,
                    0xffff_8881_0000_0000 + self.rng.u64(..1 << 20) * 64,
                    size - self.rng.u64(..size / 2),
                    size,
                    *self.rng.choice(&[0xcc0, 0x820, 0xdc0]).expect("a choice"),
                    u64::from(u32::MAX),
                ];
                m.record(&KMALLOC, 0, running, &values.map(Value::Num))
            }
            Mix::Mixed => {
                let names = ["timer", "ahci[0000:00:1f.2]", "eth0-rx-3", "i8042"];
                let n = self.rng.usize(..names.len());
                if self.rng.bool() {
                    m.record(&IRQ, 9, running, &[Value::Num(n as u64 * 7), Value::Str(names[n])])
                } else {
                    m.record(&IRQ_EXIT, 9, running, &[Value::Num(n as u64 * 7), Value::Num(u64::from(n > 0))])
                }
            }
        };
        (delta, record)
    }

    fn sched(&mut self, running: u32) -> Vec<u8> {
        let next = self.rng.u32(..=TASKS);
        let other = pid(self.cpu, next);
        let (from, to) = (task_name(running), task_name(other));
        if self.rng.u32(..3) == 0 || next == self.task {
            let values = [Value::Str(&to), Value::Num(other.into()), Value::Num(120), Value::Num(self.cpu.into())];
            return self.machine.record(&WAKEUP, 5, running, &values);
        }
        self.task = next;
        let state = *self.rng.choice(&[0, 1, 1, 2, 128]).expect("a choice");
        let values = [
            Value::Str(&from),
            Value::Num(running.into()),
            Value::Num(120),
            Value::Num(state),
            Value::Str(&to),
            Value::Num(other.into()),
            Value::Num(120),
        ];
        self.machine.record(&SWITCH, 1, running, &values)
    }

    fn syscall(&mut self, running: u32) -> Vec<u8> {
        match self.called.pop() {
            None => {
                let id = self.rng.u64(..330);
                self.called.push(id);
                let mut values = [0; 7].map(|_: u64| Value::Num(self.rng.u64(..) >> self.rng.u32(16..64)));
                values[0] = Value::Num(id);
                self.machine.record(&SYS_ENTER, 0, running, &values)
            }
            Some(id) => {
                let ret = if self.rng.u32(..8) == 0 { 2u64.wrapping_neg() } else { self.rng.u64(..4096) };
                self.machine.record(&SYS_EXIT, 0, running, &[Value::Num(id), Value::Num(ret)])
            }
        }
    }

    fn graph(&mut self, running: u32) -> (u64, Vec<u8>) {
        if self.depth < 12 && self.rng.u64(..24) > self.depth * 2 {
            let function = self.function();
            let values = [Value::Num(function), Value::Num(self.depth)];
            self.called.push(function);
            self.depth += 1;
            return (100 + self.rng.u64(..200), self.machine.record(&ENTRY, 0, running, &values));
        }
        let function = self.called.pop().unwrap_or(self.text);
        self.depth = self.depth.saturating_sub(1);
        let start = 1_000_000_000_000;
        let took = (200 << self.rng.u32(..10)) + self.rng.u64(..100);
        let values = [function, self.depth, 0, start, start + took].map(Value::Num);
        (took.min(5000), self.machine.record(&EXIT, 0, running, &values))
    }
}
