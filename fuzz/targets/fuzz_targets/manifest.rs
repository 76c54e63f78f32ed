//! See `rialto_fuzz::market::manifest`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::market::manifest(bytes);
});
