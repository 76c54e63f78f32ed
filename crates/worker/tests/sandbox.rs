//! What a worker cannot do however it tries, and what happens to everybody else when one dies or hangs.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "sandbox/damaged.rs"]
mod damaged;
#[expect(dead_code, reason = "what other tests need too is used there")]
#[path = "../../engine/tests/support/mod.rs"]
mod support;

use std::{
    fs::{self, File, OpenOptions},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use rialto_engine::{Answer, Engine, Error, LoadOptions, Sandboxed, Scope};
use rialto_protocol::job::Generation;
use rialto_worker::sandbox::{Rights, enter};
use rustix::{
    mm::{MapFlags, ProtFlags, mmap_anonymous},
    process::{Pid, Resource, Rlimit, Signal, kill_process, setrlimit},
};
use serde_json::{Value, json};
use support::{completion, manifest, model_folder, read};
use tokio::sync::watch;

/// How long anything is waited for that must happen: only a hang takes so long, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Address space of the hostile process.
const MEMORY: u64 = 1 << 30;

/// Says what it got at. Not a test of its own: the one below starts it in a process of its own.
#[test]
#[ignore = "it is the hostile half of the test below"]
fn hostile() {
    let place = PathBuf::from(std::env::var_os("HOSTILE_PLACE").unwrap());
    let port = std::env::var("HOSTILE_PORT").unwrap();
    let model = place.join("model.gguf");
    let rights = Rights {
        files: vec![model.clone()],
        memory: MEMORY,
        processors: Some(1),
        gpu: false,
    };
    let report = enter(&rights).unwrap();
    let twice = usize::try_from(MEMORY * 2).unwrap();
    let got = json!({
        "its own model": File::open(&model).is_ok(),
        "its share of memory": Vec::<u8>::new().try_reserve_exact(1 << 20).is_ok(),
        "landlock": report.landlock,
        "seccomp": report.seccomp,
        "a connection": TcpStream::connect(format!("127.0.0.1:{port}")).is_ok(),
        "a port": TcpListener::bind("127.0.0.1:0").is_ok(),
        "a datagram": UdpSocket::bind("127.0.0.1:0").is_ok(),
        "a pair of sockets": UnixStream::pair().is_ok(),
        "a socket of the machine": UnixStream::connect(place.join("socket")).is_ok(),
        "a key beside its model": fs::read(place.join("key.json")).is_ok(),
        "the list of users": fs::read("/etc/passwd").is_ok(),
        "its parent's memory": File::open(format!("/proc/{}/mem", std::os::unix::process::parent_id())).is_ok(),
        "its parent's environment": fs::read(format!("/proc/{}/environ", std::os::unix::process::parent_id())).is_ok(),
        "writing its model": OpenOptions::new().write(true).open(&model).is_ok(),
        "a new file": File::create(place.join("new")).is_ok(),
        "a new file in a public place": File::create("/tmp/rialto-hostile").is_ok(),
        "a link to a key": fs::hard_link(place.join("key.json"), place.join("link")).is_ok(),
        "removing its model": fs::remove_file(&model).is_ok(),
        "a process": Command::new("/bin/true").spawn().is_ok(),
        "a signal to its parent": kill_process(parent(), Signal::CONT).is_ok(),
        "twice its memory": Vec::<u8>::new().try_reserve_exact(twice).is_ok(),
        "twice its memory, shared": shared(twice),
        "memory that it can write and run": runnable(),
        "a higher limit": setrlimit(Resource::As, Rlimit { current: None, maximum: None }).is_ok(),
    });
    println!("\nGOT {got}");
}

fn parent() -> Pid {
    Pid::from_raw(i32::try_from(std::os::unix::process::parent_id()).unwrap()).unwrap()
}

#[expect(unsafe_code, reason = "mapping memory is what is tried; it is never touched")]
fn shared(bytes: usize) -> bool {
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe { mmap_anonymous(std::ptr::null_mut(), bytes, protection, MapFlags::SHARED) }.is_ok()
}

#[expect(unsafe_code, reason = "mapping memory is what is tried; it is never touched")]
fn runnable() -> bool {
    let protection = ProtFlags::READ | ProtFlags::WRITE | ProtFlags::EXEC;
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe { mmap_anonymous(std::ptr::null_mut(), 4_096, protection, MapFlags::PRIVATE) }.is_ok()
}

#[test]
fn a_hostile_worker_gets_at_its_model_and_at_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    for (name, content) in [("model.gguf", "weights"), ("key.json", "secret")] {
        fs::write(place.path().join(name), content).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let _socket = UnixListener::bind(place.path().join("socket")).unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["hostile", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env("HOSTILE_PLACE", place.path())
        .env("HOSTILE_PORT", listener.local_addr().unwrap().port().to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let got = said.lines().find_map(|line| line.strip_prefix("GOT "));
    let got = got.unwrap_or_else(|| panic!("{said}\n{}", String::from_utf8_lossy(&output.stderr)));
    let Value::Object(got) = serde_json::from_str(got).unwrap() else {
        panic!("{got}");
    };
    let allowed = ["its own model", "its share of memory", "landlock", "seccomp"];
    for (what, got) in got {
        assert_eq!(got, Value::Bool(allowed.contains(&what.as_str())), "{what}");
    }
    assert_eq!(fs::read(place.path().join("model.gguf")).unwrap(), b"weights");
    assert!(!Path::new("/tmp/rialto-hostile").exists());
}

async fn load(file: &str, change: impl FnOnce(&mut LoadOptions)) -> Result<Sandboxed, Error> {
    let folder = model_folder("shakespeare");
    let mut options = LoadOptions {
        worker: Some(env!("CARGO_BIN_EXE_rialto-worker").into()),
        threads: Some(1),
        slots: 8,
        ..LoadOptions::default()
    };
    change(&mut options);
    Sandboxed::load(&manifest(&folder, file), &folder, &options).await
}

async fn begin(engine: &Sandboxed, tokens: u64, seed: u64) -> (watch::Sender<u64>, Answer) {
    begin_paid(engine, tokens, seed, u64::MAX).await
}

/// Begins an answer of which only so many tokens are paid for.
async fn begin_paid(engine: &Sandboxed, tokens: u64, seed: u64, paid: u64) -> (watch::Sender<u64>, Answer) {
    let generation = Generation {
        max_tokens: tokens,
        seed,
        ..Generation::default()
    };
    let prepared = engine
        .prepare(completion("KING HENRY V:\n", generation), Scope::Alone)
        .await
        .unwrap();
    let (grant, paid) = watch::channel(paid);
    (grant, prepared.start(paid))
}

#[tokio::test]
async fn a_worker_is_born_without_secrets() {
    let engine = load("manifest-q8_0.toml", |_| ()).await.unwrap();
    let process = engine.process_id().unwrap();
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap();
    let names: Vec<String> = environment
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
        .map(|entry| String::from_utf8_lossy(entry).split('=').next().unwrap().to_owned())
        .collect();
    let known = [
        "MALLOC_ARENA_MAX",
        "ORT_DISABLE_TELEMETRY",
        "RUST_LOG",
        "LD_LIBRARY_PATH",
    ];
    assert!(names.iter().all(|name| known.contains(&name.as_str())), "{names:?}");
    for open in fs::read_dir(format!("/proc/{process}/fd")).unwrap() {
        let target = fs::read_link(open.unwrap().path()).unwrap();
        let target = target.to_string_lossy();
        let harmless = ["socket:", "pipe:", "anon_inode:", "/dev/null"]
            .iter()
            .any(|kind| target.starts_with(kind));
        assert!(harmless || target.ends_with(".gguf"), "{target}");
    }
}

#[tokio::test]
async fn a_model_that_needs_more_memory_than_it_may_have_is_refused() {
    let error = load("manifest-q8_0.toml", |options| options.memory = Some(64 << 20))
        .await
        .err()
        .unwrap();
    assert!(matches!(error, Error::Model(_)), "{error}");
}

/// Kills or stops the worker of one model while it and another's are answering.
async fn disturb(signal: Signal) {
    let (victim, other) = (
        load("manifest-q8_0.toml", |_| ()).await.unwrap(),
        load("manifest-q4_0.toml", |_| ()).await.unwrap(),
    );
    let undisturbed = {
        let (_grant, mut answer) = begin(&other, 300, 4).await;
        read(&mut answer).await.unwrap()
    };
    // It stands in the middle of its answer, however late it is struck.
    let (_one, mut dying) = begin_paid(&victim, 480, 3, 240).await;
    let (_two, mut living) = begin(&other, 300, 4).await;
    dying.pieces.recv().await.unwrap().unwrap();
    let process = victim.process_id().unwrap();
    kill_process(Pid::from_raw(i32::try_from(process).unwrap()).unwrap(), signal).unwrap();

    let error = loop {
        match dying.pieces.recv().await.unwrap() {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(error.retryable(), "{error}");
    assert!(
        !error.public().contains("signal"),
        "a buyer reads nothing about the machine"
    );
    let told = read(&mut living).await.unwrap();
    assert_eq!(told.ids, undisturbed.ids, "the other model's answer was disturbed");

    let (_three, mut again) = begin(&victim, 20, 3).await;
    assert_eq!(read(&mut again).await.unwrap().ids.len(), 20);
    assert_eq!(victim.replacements(), 1);
    assert_ne!(victim.process_id(), Some(process));
}

#[tokio::test]
async fn a_killed_worker_is_replaced_and_others_do_not_notice() {
    disturb(Signal::KILL).await;
}

#[tokio::test]
async fn a_worker_that_hangs_is_replaced_and_others_do_not_notice() {
    disturb(Signal::STOP).await;
}

#[tokio::test]
async fn eight_streams_of_which_one_is_cancelled_and_one_is_dropped_do_not_notice_each_other() {
    let engine = load("manifest-q8_0.toml", |_| ()).await.unwrap();
    let mut alone = vec![];
    for seed in 0..8 {
        let (_grant, mut answer) = begin(&engine, 120, seed).await;
        alone.push(read(&mut answer).await.unwrap());
    }
    let mut together = vec![];
    for seed in 0..8 {
        // The one that is cancelled stands in its middle until then.
        let paid = if seed == 6 { 40 } else { u64::MAX };
        together.push(begin_paid(&engine, 120, seed, paid).await);
    }
    let (dropped_grant, dropped) = together.pop().unwrap();
    let (cancelled_grant, mut cancelled) = together.pop().unwrap();
    drop((dropped, dropped_grant));
    cancelled.pieces.recv().await.unwrap().unwrap();
    drop(cancelled_grant);
    let told = read(&mut cancelled).await.unwrap();
    assert_eq!(told.finish, Some(rialto_protocol::output::FinishReason::Cancelled));
    for ((_grant, mut answer), alone) in together.into_iter().zip(alone) {
        assert_eq!(read(&mut answer).await.unwrap().ids, alone.ids);
    }
}

#[tokio::test]
async fn nothing_of_a_worker_is_left_when_its_engine_is_dropped() {
    let engine = load("manifest-q8_0.toml", |_| ()).await.unwrap();
    let process = engine.process_id().unwrap();
    drop(engine);
    let gone = async {
        while Path::new(&format!("/proc/{process}/environ")).exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}
