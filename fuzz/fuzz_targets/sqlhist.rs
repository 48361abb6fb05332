#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| tracecmd_tests::targets::sqlhist(data));
