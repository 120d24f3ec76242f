//! The target `store`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| seawal_fuzz::store(data));
