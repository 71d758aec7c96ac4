#![no_main]
//! See the module of the same name in the library.

libfuzzer_sys::fuzz_target!(|input: &[u8]| tollpass_fuzz::offer::run(input));
