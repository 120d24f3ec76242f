#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| seawal::fuzzing::store(data));
