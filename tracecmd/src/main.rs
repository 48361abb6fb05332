//! `tracecmd`: records, reports and splits Linux kernel traces with the command line of trace-cmd.

fn main() {}
