//! When a running command ends.

use tokio::{
    io::AsyncReadExt,
    signal::unix::{SignalKind, signal},
};

/// Waits for Ctrl-C or SIGTERM; for a supervised process also for the end of standard input, which says that the
/// supervisor is gone, however it went.
pub(crate) async fn until_stopped(supervised: bool) {
    let terminated = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    let orphaned = async {
        if !supervised {
            std::future::pending::<()>().await;
        }
        let mut input = tokio::io::stdin();
        let mut buffer = [0u8; 256];
        while input.read(&mut buffer).await.is_ok_and(|length| length > 0) {}
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c(), if !supervised => {}
        () = terminated => {}
        () = orphaned => {}
    }
}
