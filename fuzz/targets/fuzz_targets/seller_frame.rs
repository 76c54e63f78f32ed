//! See `rialto_fuzz::market::seller_frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::market::seller_frame(bytes);
});
