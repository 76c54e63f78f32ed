//! `rialto man`: the manual, out of the same words as `--help`.

use std::path::Path;

use anyhow::{Context, Result};
use clap::CommandFactory;

use crate::{args::Arguments, output};

/// Prints the page of the program, or writes its page and one for each command into a folder.
pub(crate) fn run(out: Option<&Path>) -> Result<()> {
    let program = without_help(Arguments::command());
    let Some(folder) = out else {
        let mut page = Vec::new();
        clap_mangen::Man::new(program).render(&mut page)?;
        output::piece(&String::from_utf8(page)?);
        return Ok(());
    };
    let write = || {
        std::fs::create_dir_all(folder)?;
        clap_mangen::generate_to(program, folder)
    };
    write().with_context(|| format!("cannot write the manual to {}", folder.display()))
}

/// Without the command `help` at any level: it says what the pages say.
fn without_help(command: clap::Command) -> clap::Command {
    command.disable_help_subcommand(true).mut_subcommands(without_help)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of a command and of all below it, such as `rialto-wallet-claim`.
    fn names(command: &clap::Command, before: &str) -> Vec<String> {
        let name = format!("{before}{}", command.get_name());
        let below = format!("{name}-");
        let below = command.get_subcommands().flat_map(|one| names(one, &below));
        std::iter::once(name.clone()).chain(below).collect()
    }

    #[test]
    fn every_command_has_a_page_that_says_what_its_help_says() {
        let folder = tempfile::tempdir().unwrap();
        run(Some(&folder.path().join("man"))).unwrap();
        let names = names(&Arguments::command(), "");
        assert!(names.contains(&"rialto-wallet-claim".to_owned()), "{names:?}");
        for name in &names {
            let page = std::fs::read_to_string(folder.path().join(format!("man/{name}.1")));
            let page = page.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{name}");
        }
        let pages = std::fs::read_dir(folder.path().join("man")).unwrap().count();
        assert_eq!(pages, names.len(), "a page of no command");
        let gateway = std::fs::read_to_string(folder.path().join("man/rialto-gateway.1")).unwrap();
        assert!(gateway.contains("RIALTO_GATEWAY_LISTEN"));
    }

    #[test]
    fn every_shell_completes_every_command() {
        use clap_complete::Shell::{Bash, Fish, Zsh};
        for shell in [Bash, Zsh, Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "rialto", &mut script);
            let script = String::from_utf8(script).unwrap();
            for command in Arguments::command().get_subcommands() {
                assert!(script.contains(command.get_name()), "{shell}: {}", command.get_name());
            }
        }
    }
}
