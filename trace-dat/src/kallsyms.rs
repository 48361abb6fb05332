//! Kernel symbols: address to name.
