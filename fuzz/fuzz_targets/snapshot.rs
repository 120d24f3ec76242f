//! The target `snapshot`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| seawal_fuzz::snapshot(data));
