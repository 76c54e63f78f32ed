//! See `rialto_fuzz::requests::batch`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::requests::batch(bytes);
});
