//! What must be on chain before an account can trade. On a development chain it is put there; elsewhere the error says
//! what to do.

use anyhow::{Context, Result, bail};
use rialto_devchain::{DEFAULT_CHAIN_ID, development_keys};
use rialto_protocol::{Address, Digest, MicroDollars, NodeKey, Region, SigningKey};
use rialto_settlement::{Chain, DeployOptions, Endpoints, Error, Wallet, ensure_deployed, fund_native};

use crate::{
    market::{Market, Record},
    models::Found,
    settings::Settings,
};

/// A tenth of the chain's coin: gas for thousands of redemptions.
const GAS_WEI: u128 = 100_000_000_000_000_000;

/// What a development account is given, in dollars.
const PLAY_MONEY: MicroDollars = MicroDollars::new(1_000_000_000);

/// The protocol's fee in a market that `rialto up` founds: one per cent.
const FEE_BPS: u16 = 100;

/// Which of the publicly known development accounts pays for what; each process uses its own, so that they do not take
/// each other's nonce.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Faucet {
    Founder = 0,
    Provider = 1,
    Gateway = 2,
}

/// Whether play money may be made: anybody may on a chain with this id.
pub(crate) fn is_development(chain_id: u64) -> bool {
    chain_id == DEFAULT_CHAIN_ID
}

fn faucet_key(faucet: Faucet) -> Result<SigningKey> {
    let keys = development_keys();
    let key = keys.get(faucet as usize).context("no such development account")?;
    Ok(SigningKey::from_bytes(&key.secret)?)
}

/// Gives a new account gas and play money on a development chain; elsewhere checks that it has what it needs.
pub(crate) async fn fund(
    chain: &Chain,
    chain_id: u64,
    account: Address,
    needed: MicroDollars,
    faucet: Faucet,
) -> Result<()> {
    fund_coin(chain, chain_id, account, faucet).await?;
    fund_token(chain, chain_id, account, needed, faucet).await
}

async fn fund_coin(chain: &Chain, chain_id: u64, account: Address, faucet: Faucet) -> Result<()> {
    let development = is_development(chain_id);
    if chain.native_balance(account).await? < GAS_WEI / 10 {
        if !development {
            bail!("the account {account} has no coin for gas: send it some on chain {chain_id}, then start again");
        }
        retried(|| async {
            fund_native(chain, &faucet_key(faucet)?, account, GAS_WEI)
                .await
                .map_err(Into::into)
        })
        .await?;
    }
    Ok(())
}

/// As [`fund`], for an account that needs no gas because others send what it signs.
pub(crate) async fn fund_token(
    chain: &Chain,
    chain_id: u64,
    account: Address,
    needed: MicroDollars,
    faucet: Faucet,
) -> Result<()> {
    let development = is_development(chain_id);
    if chain.token_balance(account).await? < needed {
        if !development {
            let token = chain.contracts().token;
            bail!(
                "the account {account} needs {needed} of the stablecoin {token} on chain {chain_id}: send it, then start again"
            );
        }
        let bank = Wallet::new(chain.clone(), faucet_key(faucet)?);
        let amount = PLAY_MONEY.max(needed);
        retried(|| async { bank.mint(account, amount).await.map_err(Into::into) }).await?;
    }
    Ok(())
}

/// Two processes that draw on one faucet may take each other's nonce; the next try sees the new one.
async fn retried<T, F: Future<Output = Result<T>>>(mut attempt: impl FnMut() -> F) -> Result<T> {
    let mut tries = 0u32;
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(error) if tries >= 5 => return Err(error),
            Err(_) => tries += 1,
        }
        tokio::time::sleep(std::time::Duration::from_millis(200) * tries).await;
    }
}

/// Puts contracts and shipped models on the chain, unless they are there.
pub(crate) async fn found(
    settings: &Settings,
    rpc_urls: &[String],
    publisher: SigningKey,
    models: &[Found],
) -> Result<Record> {
    let recorded = Record::load(settings)?;
    let chain_of = |record: &Record| Chain::connect(rpc_urls, record.contracts);
    let known = recorded.as_ref().map(Record::deployment);
    let chain_id = chain_id(rpc_urls).await?;
    let founder = if is_development(chain_id) {
        faucet_key(Faucet::Founder)?
    } else {
        SigningKey::from_bytes(&publisher.to_bytes())?
    };
    let options = DeployOptions {
        fee_bps: FEE_BPS,
        fee_recipient: founder.address(),
        ..DeployOptions::default()
    };
    if !is_development(chain_id) && known.is_none() {
        bail!(
            "chain {chain_id} is not a development chain, and `rialto up` would put play money on it: join the market \
             there with --ticket, through `rialto gateway` and `rialto provide`"
        );
    }
    let deployment = ensure_deployed(rpc_urls, &founder, &options, known).await?;
    let record = Record {
        chain_id: deployment.chain_id,
        rpc_url: rpc_urls
            .first()
            .map(|url| Endpoints::without_password(url))
            .unwrap_or_default(),
        contracts: deployment.contracts,
        block: deployment.block,
        publisher: publisher.address(),
    };
    record.save(settings)?;
    let chain = chain_of(&record)?;
    fund(
        &chain,
        chain_id,
        publisher.address(),
        MicroDollars::ZERO,
        Faucet::Founder,
    )
    .await?;
    let wallet = Wallet::new(chain, publisher);
    for model in models {
        wallet
            .register_model(&model.manifest)
            .await
            .with_context(|| model.manifest.listing())?;
    }
    Ok(record)
}

/// The chain's id, asked before any contract is known.
async fn chain_id(rpc_urls: &[String]) -> Result<u64> {
    let chain = Chain::connect(
        rpc_urls,
        rialto_protocol::ticket::Contracts {
            token: Address::default(),
            escrow: Address::default(),
            providers: Address::default(),
            models: Address::default(),
        },
    )?;
    Ok(chain.chain_id().await?)
}

/// What a provider that starts knows of itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Newcomer {
    /// By which it is dialled.
    pub(crate) node: NodeKey,
    /// Where it says it is.
    pub(crate) region: Region,
    /// Whether its records begin now.
    pub(crate) is_new: bool,
    /// Whether it is to take the place of a node of the same account whose records it does not have.
    pub(crate) move_here: bool,
}

/// Registers a provider with its stake, or brings what the chain says of it up to date.
pub(crate) async fn enrol(market: &Market, wallet: &Wallet, newcomer: Newcomer, stake: MicroDollars) -> Result<()> {
    let account = wallet.address();
    let Newcomer { node, region, .. } = newcomer;
    let registered = match market.chain.provider_of(account).await {
        Ok(registered) => registered,
        // Somebody who sold here before goes on selling on its open channels while the chain is away.
        Err(error @ Error::Unreachable { .. }) => {
            tracing::warn!(%error, "the registration was not checked");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    match registered {
        None => {
            fund(&market.chain, market.ticket.chain_id, account, stake, Faucet::Provider).await?;
            wallet.register_provider(stake, node, region, Digest::default()).await?;
        }
        Some(known) => {
            may_take_over(account, known.node, &newcomer)?;
            fund(
                &market.chain,
                market.ticket.chain_id,
                account,
                MicroDollars::ZERO,
                Faucet::Provider,
            )
            .await?;
            if known.node != node || known.region != region {
                wallet.update_provider(node, region, Digest::default()).await?;
            }
        }
    }
    Ok(())
}

/// Refuses to sell with an account that sold from elsewhere without the records of that: two receipts with one number
/// cost the whole stake.
fn may_take_over(account: Address, registered: NodeKey, newcomer: &Newcomer) -> Result<()> {
    if registered == newcomer.node || !newcomer.is_new || newcomer.move_here {
        return Ok(());
    }
    bail!(
        "the account {account} is registered with another node, and this data directory has no records of what it sold: \
         if that node still runs, or its data directory still exists, sell from there; if it is gone for good, start \
         with --move-here, which serves only channels that are opened from now on"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_that_sold_elsewhere_is_taken_over_only_with_its_records_or_when_told() {
        let newcomer = Newcomer {
            node: NodeKey([1; 32]),
            region: Region::default(),
            is_new: true,
            move_here: false,
        };
        let other = NodeKey([2; 32]);
        let may = |registered, newcomer: Newcomer| may_take_over(Address::default(), registered, &newcomer).is_ok();
        assert!(!may(other, newcomer));
        assert!(may(newcomer.node, newcomer));
        assert!(may(
            other,
            Newcomer {
                is_new: false,
                ..newcomer
            }
        ));
        assert!(may(
            other,
            Newcomer {
                move_here: true,
                ..newcomer
            }
        ));
    }
}
