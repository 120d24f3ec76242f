//! The target `record`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| seawal_fuzz::record(data));
