//! printk formats: address to format text.
