//! Where it is kept and where it trades: the data directory, the market's chain and nodes, the ports.

use std::net::TcpListener;

use anyhow::Result;

use super::{Finding, State};
use crate::{
    args::Place,
    commands::{chain, gateway},
    market::Market,
    settings::Settings,
};

/// Looks at all of it.
pub(super) async fn look(settings: &Settings) -> Vec<Finding> {
    let mut findings = vec![data_dir(settings)];
    findings.extend(market(settings).await);
    findings.extend(ports(settings));
    findings
}

fn data_dir(settings: &Settings) -> Finding {
    let check = || {
        settings.dir.write("doctor", "")?;
        std::fs::remove_file(settings.dir.path("doctor"))?;
        anyhow::Ok(format!("{} can be written", settings.dir.root().display()))
    };
    let advice = "make it writable for this user, or choose another with --data-dir";
    Finding::of(
        "data directory",
        check().map_err(|error| anyhow::anyhow!("{error:#}: {advice}")),
    )
}

async fn market(settings: &Settings) -> Vec<Finding> {
    let market = match Market::find(settings, &Place::default()) {
        Ok(market) => market,
        // A machine that has not joined yet is not ill.
        Err(error) => return vec![Finding::new("market", State::Good, format!("{error:#}"))],
    };
    let deployed = async {
        let number = market.chain.block_number().await?;
        anyhow::ensure!(
            market.chain.chain_id().await? == market.ticket.chain_id && market.chain.is_deployed().await?,
            "the chain at {} is not this market's: start the right one, or begin anew with `rialto reset`",
            market.ticket.rpc_url
        );
        anyhow::Ok(format!("block {number} at {}", market.ticket.rpc_url))
    };
    let deployed: Result<String> = deployed.await.map_err(|error| {
        let advice = "start the market that this data directory belongs to, or name another node with --rpc-url";
        anyhow::anyhow!("{error:#}: {advice}")
    });
    let said = format!(
        "chain {}, escrow {}",
        market.ticket.chain_id, market.ticket.contracts.escrow
    );
    vec![
        Finding::new("market", State::Good, said),
        Finding::of("chain", deployed),
    ]
}

/// Whether the ports are free, or held by ourselves.
fn ports(settings: &Settings) -> Vec<Finding> {
    let file = &settings.file;
    let gateway = file.gateway.listen.unwrap_or_else(|| gateway::DEFAULT_LISTEN.into());
    let chain = file.chain.listen.unwrap_or_else(|| chain::DEFAULT_LISTEN.into());
    let running = settings.dir.lock("market").is_err() || settings.dir.lock("gateway").is_err();
    let check = |address: std::net::SocketAddr| match TcpListener::bind(address) {
        Ok(_) => Ok(format!("{address} is free")),
        Err(_) if running => Ok(format!(
            "{address} is in use; a market of this data directory is running"
        )),
        Err(error) => Err(anyhow::anyhow!(
            "{address}: {error}: stop what uses it, or choose another address"
        )),
    };
    vec![
        Finding::of("gateway port", check(gateway)),
        Finding::of("chain port", check(chain)),
    ]
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpSocket;

    use super::*;
    use crate::{data_dir::DataDir, settings::File};

    #[test]
    fn a_port_that_another_program_holds_is_named_and_one_of_ours_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let held = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        // Nobody else is given it meanwhile, and it can be listened on.
        let kept = TcpSocket::new_v4().unwrap();
        kept.set_reuseaddr(true).unwrap();
        kept.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let free = kept.local_addr().unwrap();
        if cfg!(not(target_os = "linux")) {
            drop(kept);
        }
        let mut file = File::default();
        file.gateway.listen = Some(held.local_addr().unwrap());
        file.chain.listen = Some(free);
        let settings = Settings {
            file,
            config: None,
            dir: DataDir::open(folder.path().join("market")).unwrap(),
            json: false,
        };
        let findings = ports(&settings);
        assert!(!findings[0].ok && findings[0].said.contains("choose another address"));
        assert!(findings[1].ok);
        let _market = settings.dir.lock("market").unwrap();
        assert!(ports(&settings)[0].ok, "it is held by our own market");
    }
}
