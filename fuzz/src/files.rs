//! The files of models.

use std::io::Cursor;

use rialto_engine::files::{self, Source};
use rialto_protocol::manifest::Format;

fn check(format: Format, name: &str, bytes: &[u8]) -> bool {
    let mut sources = [Source {
        name,
        size: size(bytes),
        reader: Cursor::new(bytes),
    }];
    match files::check_sources(format, &mut sources) {
        Ok(_) => true,
        Err(refused) => {
            let message = refused.to_string();
            assert!(message.len() < 1_024, "a message of {} bytes", message.len());
            assert!(
                !message.contains(char::is_control),
                "a message that writes on the terminal"
            );
            false
        }
    }
}

fn size(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// A language model for llama.cpp.
pub fn gguf(bytes: &[u8]) -> bool {
    if let Ok(header) = files::gguf::Header::read(Cursor::new(bytes), size(bytes)) {
        assert!(header.tensor_bytes < size(bytes), "more weights than file");
        assert!(!header.tensor_types.is_empty(), "weights of no type");
        // Neither may overflow.
        let _ = header.kv_bytes_per_token();
    }
    check(Format::Gguf, "x.gguf", bytes)
}

/// Tensors.
pub fn safetensors(bytes: &[u8]) -> bool {
    if let Ok(header) = files::safetensors::Header::read(Cursor::new(bytes), size(bytes)) {
        let sum: u64 = header.tensors().map(|(_, _, bytes)| bytes).sum();
        assert_eq!(sum, header.tensor_bytes(), "a gap or an overlap was accepted");
        assert!(sum < size(bytes), "more weights than file");
    }
    check(Format::Safetensors, "x.safetensors", bytes)
}

/// A predictive model.
pub fn onnx(bytes: &[u8]) -> bool {
    match files::onnx::locations(bytes) {
        Ok(locations) => {
            for location in &locations {
                let plain = location.split('/').all(|part| !matches!(part, "" | "." | ".."));
                assert!(
                    plain && !location.contains(['\\', ':', '\0']),
                    "{location:?} was accepted"
                );
            }
        }
        Err(_) => {
            let checked = files::onnx::check(bytes, &mut |_| Ok(()));
            assert!(checked.is_err(), "the whole is sound and its tensors are not");
        }
    }
    check(Format::Onnx, "x.onnx", bytes)
}
