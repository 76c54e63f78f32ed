//! See `rialto_fuzz::files::safetensors`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::files::safetensors(bytes);
});
