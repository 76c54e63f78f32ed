//! `rialto reset`: forget everything.

use std::io::BufRead;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::{args, output, settings::Settings};

/// What a data directory of ours may contain: anything else is left alone, and so is the directory.
const OURS: [&str; 9] = [
    "chain",
    "gateway",
    "provider",
    "publisher",
    "logs",
    "market",
    "market.json",
    "ticket",
    "password",
];

/// Deletes what this program keeps, after a confirmation.
pub(crate) fn run(settings: &Settings, options: &args::Reset) -> Result<()> {
    let root = settings.dir.root();
    let _locks = [
        settings.dir.lock("market")?,
        settings.dir.lock("gateway")?,
        settings.dir.lock("provider")?,
    ];
    if !options.yes {
        output::say(format_args!(
            "this deletes all keys, receipts and the development chain in {}\nmoney on a public chain whose keys are here \
             is lost for good\ntype `reset` to go on:",
            root.display()
        ));
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != "reset" {
            bail!("nothing was deleted");
        }
    }
    for name in OURS {
        let path = root.join(name);
        let deleted = if path.is_dir() {
            std::fs::remove_dir_all(&path)
        } else {
            std::fs::remove_file(&path)
        };
        match deleted {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot delete {}", path.display()));
            }
            _ => {}
        }
    }
    output::either(settings.json, &json!({ "deleted": root }), || {
        output::line(format_args!("everything in {} is deleted", root.display()));
    })
}
