//! Exactness: that reading an answer again gives the very logits that writing it gave.
//!
//! llama.cpp computes a token that is read alone, as in generation, with other kernels than tokens that are read together,
//! as in an audit. Most of them agree to the last bit: those of block-quantised weights add up the same products in the
//! same order. Three do not, all of them in products of single or half precision numbers: llamafile's matrix
//! multiplication, the tiled one for K-quants, and flash attention. The last can be switched off by a parameter. The others
//! are chosen at compile time, and compiling without them costs more than half of the speed of prompts, because then
//! quantised weights lose llamafile's kernels too.
//!
//! So the linker puts these functions before llama.cpp's own (`--wrap` in `build.rs`): in exact mode they decline the
//! products that disagree, and llama.cpp falls back to the kernel that it uses for one token; everything else passes
//! through. It is one program with both modes, and tests hold exact mode to bit-equality.

use std::sync::atomic::{AtomicBool, Ordering};

use rialto_engine::Error;

/// Whether this process computes exactly. A process has one model, so it is set once, before the first computation.
static EXACT: AtomicBool = AtomicBool::new(false);

/// `LLAMA_FLASH_ATTN_TYPE_DISABLED`.
pub(super) const NO_FLASH_ATTENTION: i32 = 0;

/// From now on this process computes exactly. Fails where the linker cannot do what this needs.
pub(super) fn demand() -> Result<(), Error> {
    if !cfg!(target_os = "linux") {
        let reason = "exact computation is not available on this system: use the fast mode";
        return Err(Error::Model(reason.to_owned()));
    }
    EXACT.store(true, Ordering::SeqCst);
    Ok(())
}

#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "these stand between two functions of a C library, and pass their arguments on"
)]
mod wrapped {
    use std::{
        ffi::{c_char, c_int, c_void},
        sync::atomic::Ordering,
    };

    use super::EXACT;

    /// `GGML_TYPE_F32`, `GGML_TYPE_F16`, `GGML_TYPE_BF16`: llamafile's kernels for these add up in another order than
    /// the dot product that a single token gets.
    const FLOATS: [c_int; 3] = [0, 1, 30];

    unsafe extern "C" {
        fn __real_llamafile_sgemm(
            parameters: *const c_void,
            m: i64,
            n: i64,
            k: i64,
            a: *const c_void,
            lda: i64,
            b: *const c_void,
            ldb: i64,
            c: *mut c_void,
            ldc: i64,
            a_type: c_int,
            b_type: c_int,
            c_type: c_int,
        ) -> bool;
        fn __real_ggml_compute_forward_mul_mat_tiled(parameters: *const c_void, destination: *mut c_void) -> bool;
        fn __real_ggml_compute_forward_mul_mat_id_tiled(
            parameters: *const c_void,
            destination: *mut c_void,
            expert: i64,
            rows: i64,
            expert_rows: *const i32,
            scratch: *mut c_char,
        ) -> bool;
    }

    fn exact() -> bool {
        EXACT.load(Ordering::Relaxed)
    }

    #[unsafe(no_mangle)]
    extern "C" fn __wrap_llamafile_sgemm(
        parameters: *const c_void,
        m: i64,
        n: i64,
        k: i64,
        a: *const c_void,
        lda: i64,
        b: *const c_void,
        ldb: i64,
        c: *mut c_void,
        ldc: i64,
        a_type: c_int,
        b_type: c_int,
        c_type: c_int,
    ) -> bool {
        if exact() && FLOATS.contains(&a_type) {
            return false;
        }
        // SAFETY: the arguments are llama.cpp's own, unchanged.
        unsafe { __real_llamafile_sgemm(parameters, m, n, k, a, lda, b, ldb, c, ldc, a_type, b_type, c_type) }
    }

    #[unsafe(no_mangle)]
    extern "C" fn __wrap_ggml_compute_forward_mul_mat_tiled(
        parameters: *const c_void,
        destination: *mut c_void,
    ) -> bool {
        // SAFETY: the arguments are llama.cpp's own, unchanged.
        !exact() && unsafe { __real_ggml_compute_forward_mul_mat_tiled(parameters, destination) }
    }

    #[unsafe(no_mangle)]
    extern "C" fn __wrap_ggml_compute_forward_mul_mat_id_tiled(
        parameters: *const c_void,
        destination: *mut c_void,
        expert: i64,
        rows: i64,
        expert_rows: *const i32,
        scratch: *mut c_char,
    ) -> bool {
        if exact() {
            return false;
        }
        // SAFETY: the arguments are llama.cpp's own, unchanged.
        unsafe {
            __real_ggml_compute_forward_mul_mat_id_tiled(parameters, destination, expert, rows, expert_rows, scratch)
        }
    }
}
