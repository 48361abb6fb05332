//! Controls the kernel's tracefs. It knows the kernel interface and never a file format.
