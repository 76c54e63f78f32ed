//! Writes the beginnings of the corpora into `fuzz/corpus/`. What a fuzzer has found stays there.

use std::{fs, io, path::Path};

use rialto_fuzz::seeds;

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for seed in seeds::all().map_err(io::Error::other)? {
        let folder = corpus.join(seed.target);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join(format!("seed-{}", seed.name)), seed.bytes)?;
    }
    Ok(())
}
