//! The target `manifest`.
#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| seawal_fuzz::manifest(data));
