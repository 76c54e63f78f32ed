//! Puts our switch between llama.cpp and two of its kernels: see `src/llama/exact.rs`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|system| system == "linux") {
        for function in [
            "llamafile_sgemm",
            "ggml_compute_forward_mul_mat_tiled",
            "ggml_compute_forward_mul_mat_id_tiled",
        ] {
            println!("cargo:rustc-link-arg=-Wl,--wrap={function}");
        }
    }
}
