//! Nothing phones home: a whole market on one machine sends no packet to the outside.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use rialto_testkit::process::{repository, rialto};

/// In a network of its own, with a way out that leads nowhere but is counted. The last line is a control: a packet to
/// the outside is seen. No packet really leaves.
const SCRIPT: &str = r#"
set -eu
sent() { awk '$1 == "outside:" { print $11 }' /proc/net/dev; }
ip link set lo up
ip link add outside type veth peer name nowhere
echo 1 >/proc/sys/net/ipv6/conf/outside/disable_ipv6
echo 1 >/proc/sys/net/ipv6/conf/nowhere/disable_ipv6
ip addr add 192.0.2.2/24 dev outside
ip link set outside arp off up
ip link set nowhere up
ip route add default via 192.0.2.1
before=$(sent)
"$RIALTO" up --once --json --data-dir "$PLACE" >&2
after=$(sent)
echo hello >/dev/udp/198.51.100.1/9
echo "$before $after $(sent)"
"#;

#[test]
fn a_market_on_one_machine_sends_nothing_to_the_outside() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let output = Command::new("unshare")
        .args(["--map-root-user", "--net", "bash", "-c", SCRIPT])
        .env("RIALTO", rialto()?)
        .env("PLACE", folder.path().join("market"))
        .env("RIALTO_MODELS_DIR", repository().join("models"))
        .env(
            "ORT_DYLIB_PATH",
            repository().join("target/onnxruntime/libonnxruntime.so"),
        )
        .output()
        .context("`unshare` of util-linux is needed")?;
    let said = String::from_utf8(output.stdout)?;
    ensure!(
        output.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let counts: Vec<u64> = said.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    let [before, after, control] = counts.as_slice() else {
        anyhow::bail!("three counts, not {said:?}")
    };
    ensure!(before == after, "{} packets left the machine", after - before);
    ensure!(
        control > after,
        "a packet to the outside was not counted: this test shows nothing here"
    );
    Ok(())
}
