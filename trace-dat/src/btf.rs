//! BPF type format: argument names and types of kernel functions.
