//! Power cuts: every part is killed at many points, and no unit is lost or paid twice.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::future::join_all;
use rialto_testkit::{
    PATIENCE,
    client::Streamed,
    process::{Up, sigkill},
};

use crate::{bill, lives::MODEL};

#[tokio::test]
async fn a_provider_killed_in_mid_answer_ends_it_with_an_error_and_is_paid_for_what_arrived() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let client = up.client()?;
    let provider = up.pid_of("provider")?;
    let mut killed = false;
    let cut = client
        .stream(MODEL, "KING RICHARD III:\n", 400, |so_far: &Streamed| {
            if so_far.deltas >= 3 && !killed {
                killed = sigkill(provider).is_ok();
            }
            true
        })
        .await?;
    ensure!(killed, "the answer was over before the kill: {cut:?}");
    if !cut.done {
        ensure!(cut.error.is_some(), "the stream just ended: {cut:?}");
    }
    up.pid_after("provider", provider)?;
    answers_again(&up).await?;
    bill::settles(&up, true).await?;
    up.stop()
}

#[tokio::test]
async fn a_cancelled_stream_is_paid_for_what_arrived() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    let client = up.client()?;
    for cut in [1, 3, 9] {
        client
            .stream(MODEL, "Speak on.", 400, |so_far| so_far.deltas < cut)
            .await?;
        answers_again(&up).await?;
    }
    bill::settles(&up, true).await?;
    up.stop()
}

#[tokio::test]
async fn a_provider_is_killed_at_many_points_and_the_books_balance() -> Result<()> {
    killed_at_many_points("provider", 0).await
}

#[tokio::test]
async fn a_gateway_is_killed_at_many_points_and_the_books_balance() -> Result<()> {
    killed_at_many_points("gateway", 1).await
}

#[tokio::test]
async fn a_chain_is_killed_at_many_points_and_the_books_balance() -> Result<()> {
    killed_at_many_points("chain", 2).await
}

/// Kills a part four times, beginning with this of the points.
async fn killed_at_many_points(part: &str, first: u64) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let up = Up::on_devchain(&folder.path().join("market"))?;
    for point in (first..12).step_by(3) {
        // From the first frame of a trade to after its claim: the delays walk over all of it.
        let delay = Duration::from_millis(7 + 45 * point);
        let client = up.client()?;
        let trades = join_all((0..3).map(|_| client.continue_text(MODEL, "KING HENRY V:\n", 120, |_| true)));
        let kill = async {
            tokio::time::sleep(delay).await;
            up.kill_and_wait(part)
        };
        let (outcomes, killed) = tokio::join!(trades, kill);
        killed.with_context(|| format!("point {point}: {part}"))?;
        drop(outcomes);
        let after = || format!("after the {part} was killed at point {point}");
        catches_up(&up).await.with_context(after)?;
        bill::settles(&up, true).await.with_context(after)?;
    }
    up.stop()
}

/// Asks until the buyer has every receipt that the seller has signed. A request settles what a kill cut off before it, but
/// for an answer that the seller is just ending: the receipt of that comes with the next request.
async fn catches_up(up: &Up) -> Result<()> {
    let wait = async {
        loop {
            answers_again(up).await?;
            if matches!(bill::bought(up), Ok(bought) if bought == bill::sold(up)?) {
                return anyhow::Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .context("the buyer never gets all receipts")?
}

/// Asks until an answer comes: the part that was killed needs a moment.
async fn answers_again(up: &Up) -> Result<()> {
    let client = up.client()?;
    let wait = async {
        loop {
            match client.chat(MODEL, "Art thou there?", 8).await {
                Ok(_) => return,
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .context("the market does not answer any more")
}
