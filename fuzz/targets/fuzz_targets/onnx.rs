//! See `rialto_fuzz::files::onnx`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    rialto_fuzz::files::onnx(bytes);
});
