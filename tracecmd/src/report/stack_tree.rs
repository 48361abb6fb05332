//! Stacks that begin alike, as a tree with counts and times.

use trace_dat::Decoder;

use super::profile::time;

/// Column of the first level.
const FIRST_COLUMN: usize = 10;

/// One return address with what called it.
#[derive(Clone, Debug, Default)]
struct Node {
    addr: u64,
    count: u64,
    timed: bool,
    time: u64,
    /// (time, when it began)
    max: (u64, u64),
    min: (u64, u64),
    children: Vec<Node>,
}

/// A tree of stacks; the innermost function is at the root.
#[derive(Clone, Debug, Default)]
pub struct StackTree {
    roots: Vec<Node>,
}

impl Node {
    fn add(&mut self, time: Option<(u64, u64)>) {
        self.count += 1;
        let Some((time, ts)) = time else { return };
        if !self.timed || time > self.max.0 {
            self.max = (time, ts);
        }
        if !self.timed || time < self.min.0 {
            self.min = (time, ts);
        }
        self.timed = true;
        self.time = self.time.wrapping_add(time);
    }

    fn merge(&mut self, other: &Node) {
        if other.timed && (!self.timed || other.max.0 > self.max.0) {
            self.max = other.max;
        }
        if other.timed && (!self.timed || other.min.0 < self.min.0) {
            self.min = other.min;
        }
        self.timed |= other.timed;
        self.count += other.count;
        self.time = self.time.wrapping_add(other.time);
        merge(&mut self.children, &other.children);
    }

    fn weight(&self) -> (u64, u64) {
        (self.time, self.count)
    }
}

fn merge(into: &mut Vec<Node>, from: &[Node]) {
    for node in from {
        match into.iter_mut().find(|n| n.addr == node.addr) {
            Some(n) => n.merge(node),
            None => into.push(node.clone()),
        }
    }
}

impl StackTree {
    /// Adds a stack, innermost first; `time`: how long and since when.
    pub fn add(&mut self, stack: &[u64], time: Option<(u64, u64)>) {
        let mut level = &mut self.roots;
        for addr in stack {
            let at = match level.iter().position(|n| n.addr == *addr) {
                Some(at) => at,
                None => {
                    level.push(Node { addr: *addr, ..Node::default() });
                    level.len() - 1
                }
            };
            let Some(node) = level.get_mut(at) else { return };
            node.add(time);
            level = &mut node.children;
        }
    }

    /// Adds all stacks of another tree.
    pub fn merge(&mut self, other: &StackTree) {
        merge(&mut self.roots, &other.roots);
    }

    /// Appends the tree, nothing when it is empty.
    pub fn print(&self, dec: &Decoder, out: &mut Vec<u8>) {
        if self.roots.is_empty() {
            return;
        }
        print_level(dec, &self.roots, &mut " ".repeat(FIRST_COLUMN), out);
        out.extend_from_slice(b"      \n");
    }
}

fn name(dec: &Decoder, addr: u64) -> String {
    match dec.symbols().find(addr) {
        Some(s) => format!("{} ({addr:#x})", String::from_utf8_lossy(s.name)),
        None => format!("{addr:#x}"),
    }
}

fn print_level(dec: &Decoder, nodes: &[Node], indent: &mut String, out: &mut Vec<u8>) {
    let mut put = |text: String| out.extend_from_slice(text.as_bytes());
    let mut sorted: Vec<&Node> = nodes.iter().collect();
    sorted.sort_by_key(|n| std::cmp::Reverse(n.weight()));
    let time_sum: u64 = nodes.iter().fold(0, |sum, n| sum.wrapping_add(n.time));
    let count_sum: u64 = nodes.iter().map(|n| n.count).sum();
    let percent = |part: u64, all: u64| (u128::from(part) * 100 + u128::from(all) / 2) / u128::from(all.max(1));
    for (i, node) in sorted.iter().enumerate() {
        let last = i + 1 == sorted.len();
        let bar = if last { ' ' } else { '|' };
        put(format!("{indent}| \n{indent}+ {}\n", name(dec, node.addr)));
        if node.timed {
            put(format!(
                "{indent}{bar}   {}% ({}) time:{} max:{}(ts:{}) min:{}(ts:{}) avg:{}\n",
                percent(node.time, time_sum),
                node.count,
                node.time,
                node.max.0,
                time(node.max.1),
                node.min.0,
                time(node.min.1),
                node.time / node.count.max(1)
            ));
        } else {
            put(format!("{indent}{bar}   {}% ({})\n", percent(node.count, count_sum), node.count));
        }
        // A chain of callers without branches.
        let mut end = *node;
        while let [only] = end.children.as_slice() {
            put(format!("{indent}{bar}    {}\n", name(dec, only.addr)));
            end = only;
        }
        if !end.children.is_empty() {
            let length = indent.len();
            indent.push(bar);
            indent.push_str("     ");
            let mut inner = Vec::new();
            print_level(dec, &end.children, indent, &mut inner);
            indent.truncate(length);
            inner.extend_from_slice(format!("{indent}{bar} \n").as_bytes());
            put(String::from_utf8_lossy(&inner).into_owned());
        }
        if last {
            put(format!("{indent}  \n"));
        }
    }
}
