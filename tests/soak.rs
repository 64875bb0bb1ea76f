//! Everything at once and for long, and very many at once: what is left in the process afterwards.
//!
//! `SWITCHGATE_SOAK_SECONDS` says how long; see docs/operations.md.

use std::{sync::LazyLock, time::Duration};

use switchgate::net::open_files;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::Instant,
};

use crate::support::{
    Client, accepted,
    frames::{BINARY, MASK, TEXT, close, frame, reset_on_drop},
    handshake,
    process::{OpenFiles, Process},
    within,
};

/// Clients at a time, each of which does one thing after the other.
const CLIENTS: u64 = 48;

const WORKERS: usize = 2;

/// Pipes that a thread keeps for the next big payload, two ends each: `MAX_KEPT` in src/relay/splice.rs.
const KEPT_PIPES: usize = 2 * 8 * WORKERS;

/// How far the private memory may end above its level after the warm-up: what the allocator keeps in pieces.
const MEMORY_BOUND: u64 = 8 << 20;

/// How often the load may end above that. A leak does each time; pages that the allocator holds in pieces come to a level
/// and stay there, and on a busy machine that level is not always reached in the warm-up.
const ROUNDS: usize = 3;

/// How long the allocator has for that: on a busy machine its decay of a second takes ten.
const CALM: Duration = Duration::from_secs(40);

fn wished() -> Option<u64> {
    std::env::var("SWITCHGATE_SOAK_SECONDS").ok().map(|text| text.parse().expect("SWITCHGATE_SOAK_SECONDS: a number"))
}

fn in_ci() -> bool {
    std::env::var_os("SWITCHGATE_REQUIRE_PEERS").is_some()
}

/// Chance that can be had again.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn ask(path: &str, more: &str) -> String {
    handshake(more).replace("/chat", path)
}

/// What a scripted upstream does is in the path.
async fn script(stream: TcpStream) {
    let mut peer = Client::new(stream);
    let head = peer.head().await;
    match head.split(' ').nth(1).unwrap() {
        "/scripted/wrong" => peer.send(accepted("").replace("s3pP", "xxxx")).await,
        "/silent" => {
            peer.rest().await;
        }
        "/scripted/reset" => {
            let half = frame(BINARY, &[7; 1000], None);
            peer.send([accepted("").as_bytes(), &half[..500]].concat()).await;
            reset_on_drop(&peer.stream);
        }
        "/scripted/vanish" => peer.send([accepted("").as_bytes(), &frame(TEXT, b"bye", None)].concat()).await,
        "/scripted/flood" => {
            peer.send(accepted("")).await;
            let big = frame(BINARY, &[9; 300_000], None);
            // Who is killed meanwhile takes no more.
            for _ in 0..4 {
                let _ = within("room", peer.stream.write_all(&big)).await;
            }
            let _ = within("room", peer.stream.write_all(&close(1000, None))).await;
            peer.rest().await;
        }
        _ => {
            // Takes whatever comes, until the end.
            peer.send(accepted("")).await;
            peer.rest().await;
        }
    }
}

async fn scripted_upstream() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream));
        }
    });
    url
}

const KINDS: usize = 13;

/// Made once: the proxy is to be kept busy, not the test.
const FLOOD_SIZE: usize = 256 << 10;
static FLOOD: LazyLock<Vec<u8>> = LazyLock::new(|| frame(BINARY, &vec![5; FLOOD_SIZE], MASK));

/// One of the things that clients do.
async fn act(kind: usize, address: &str, dice: &mut Dice) {
    let stream = within("connect", TcpStream::connect(address)).await.unwrap();
    let mut client = Client::new(stream);
    let expected = match kind {
        0..=9 | 12 => 101,
        10 => 502,
        _ => 504,
    };
    let path = match kind {
        6 => "/scripted/reset",
        7 => "/scripted/vanish",
        8 => "/scripted/flood",
        9 => "/scripted/sink",
        10 => "/scripted/wrong",
        11 => "/silent",
        _ => "/echo",
    };
    match kind {
        4 => return begin_and_stop(client, dice).await,
        5 => return refused(client).await,
        _ => assert_eq!(client.ask(ask(path, "")).await.status, expected, "{path}"),
    }
    match kind {
        0 => {
            for _ in 0..5 {
                let payload = vec![7; usize::try_from(dice.below(70_000)).unwrap()];
                client.send(frame(BINARY, &payload, MASK)).await;
                assert!(client.frame().await.unwrap().payload == payload);
            }
            client.send(close(1000, MASK)).await;
            assert_eq!((client.expect_close().await, client.frame().await), (1000, None));
        }
        1 => {
            client.send(frame(TEXT, b"hello", MASK)).await;
            client.frame().await.unwrap();
            reset_on_drop(&client.stream);
        }
        2 => {
            client.send(&FLOOD[..50_000]).await;
            reset_on_drop(&client.stream);
        }
        3 => {
            client.send(FLOOD.as_slice()).await;
            assert_eq!(client.frame().await.unwrap().payload.len(), FLOOD_SIZE);
        }
        6 => assert!(client.rest().await.len() <= 504, "half a frame, then the end"),
        7 => {
            assert_eq!(client.frame().await.unwrap().payload, b"bye");
            assert_eq!(client.expect_close().await, 1012);
            client.send(close(1012, MASK)).await;
        }
        8 => {
            for _ in 0..1 + dice.below(4) {
                assert_eq!(client.frame().await.unwrap().payload.len(), 300_000);
            }
            reset_on_drop(&client.stream);
        }
        9 => {
            client.send(&FLOOD[..200_000]).await;
            reset_on_drop(&client.stream);
        }
        12 => {
            client.send("GET /admin HTTP/1.1\r\nHost: gate.test\r\n\r\n").await;
            assert_eq!(client.expect_close().await, 1002);
        }
        _ => {}
    }
}

/// A handshake that never ends: given up, or left until it is answered with 408.
async fn begin_and_stop(mut client: Client<TcpStream>, dice: &mut Dice) {
    let opening = ask("/echo", "");
    client.send(&opening[..opening.len() - 1 - usize::try_from(dice.below(100)).unwrap()]).await;
    match dice.below(8) {
        0 => assert_eq!(client.answer().await.status, 408),
        1..4 => reset_on_drop(&client.stream),
        _ => {}
    }
}

/// Three refusals and an answer on one connection.
async fn refused(mut client: Client<TcpStream>) {
    assert_eq!(client.ask(ask("/echo", "Origin: https://evil.test\r\n")).await.status, 403);
    assert_eq!(client.ask(ask("/echo", "").replace("Version: 13", "Version: 8")).await.status, 426);
    assert_eq!(client.ask(ask("/nowhere", "")).await.status, 404);
    assert_eq!(client.ask("GET /echo HTTP/1.1\r\nHost: gate.test\r\n\r\n").await.status, 200);
}

/// All clients for so long; how often each thing was done.
async fn load(address: &str, seed: u64, lasts: Duration) -> [u64; KINDS] {
    let until = Instant::now() + lasts;
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        let address = address.to_owned();
        clients.spawn(async move {
            let mut dice = Dice(seed.wrapping_add(client.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1);
            let mut done = [0; KINDS];
            while Instant::now() < until {
                let kind = usize::try_from(dice.below(KINDS as u64)).unwrap();
                act(kind, &address, &mut dice).await;
                done[kind] += 1;
            }
            done
        });
    }
    let mut all = [0; KINDS];
    while let Some(done) = clients.join_next().await {
        all.iter_mut().zip(done.unwrap()).for_each(|(all, done)| *all += done);
    }
    all
}

/// All clients do the same at the same time, each thing that takes memory: the most that the load can come to.
async fn peak(address: &str) {
    for kind in [0, 3, 8, 9, 3] {
        let mut clients = JoinSet::new();
        for client in 1..=CLIENTS {
            let address = address.to_owned();
            clients.spawn(async move { act(kind, &address, &mut Dice(client)).await });
        }
        clients.join_all().await;
    }
}

/// What is open without any connection, once all threads have begun.
async fn files_at_rest(process: &Process) -> OpenFiles {
    // The kernel spreads connections over the threads: with so many answers each has given one.
    let mut clients = Vec::new();
    for _ in 0..32 {
        let mut client = process.connect().await;
        client.ask("GET /nowhere HTTP/1.1\r\nHost: gate.test\r\n\r\n").await;
        clients.push(client);
    }
    let mut files = process.open_files();
    files.sockets -= clients.len();
    files
}

/// Waits until no more sockets are open than at first: the last ends are still on their way.
async fn settled(process: &Process, first: OpenFiles) -> OpenFiles {
    within("end of all connections", async {
        while process.open_files().sockets != first.sockets {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    process.open_files()
}

/// The private memory, once it is no more than `bound` or has had [`CALM`] to come down.
///
/// The allocator gives pages back a second after their last use, and only while it is used: so some are kept busy here.
async fn memory_at_rest(process: &Process, bound: u64) -> u64 {
    let begun = Instant::now();
    while process.private_memory() > bound && begun.elapsed() < CALM {
        files_at_rest(process).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    process.private_memory()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_at_once_leaves_nothing_behind() {
    let seconds = wished().unwrap_or(if in_ci() { 30 } else { 3 });
    open_files::raise();
    let url = scripted_upstream().await;
    let mut process = Process::start(&format!(
        "workers = {WORKERS}\n[limits]\nhead_timeout = \"2s\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\n\
         [[route]]\npath = \"/echo\"\nupstream = \"echo\"\n\
         [[route]]\npath = \"/scripted\"\nupstream = \"scripted\"\nclose_timeout = \"500ms\"\n\
         [[route]]\npath = \"/silent\"\nupstream = \"silent\"\n\
         [upstream.echo]\nurl = \"builtin:echo\"\n[upstream.scripted]\nurl = \"{url}\"\n\
         [upstream.silent]\nurl = \"{url}\"\nresponse_timeout = \"500ms\"\n",
    ))
    .await;
    let mut log = process.take_log();
    let counted = tokio::spawn(async move {
        let (mut opened, mut ended) = (0_u64, 0_u64);
        while let Some(line) = log.recv().await {
            opened += u64::from(line.contains("\"websocket opened\""));
            ended += u64::from(line.contains("\"websocket ended\""));
        }
        (opened, ended)
    });
    let address = process.addresses[0].clone();
    let first = files_at_rest(&process).await;
    // Caches, pools and the allocator's own stock are filled first, however slow the machine is at that.
    peak(&address).await;
    load(&address, 1, Duration::from_secs(seconds.clamp(1, 30))).await;
    let warm_files = settled(&process, first).await;
    let mut memory = vec![process.private_memory()];
    let mut done = [0; KINDS];
    let mut last_files = warm_files;
    for seed in 2..2 + ROUNDS as u64 {
        let round = load(&address, seed, Duration::from_secs(seconds)).await;
        done.iter_mut().zip(round).for_each(|(done, round)| *done += round);
        last_files = settled(&process, first).await;
        let bound = memory[memory.len() - 1] + MEMORY_BOUND;
        memory.push(memory_at_rest(&process, bound).await);
        if memory[memory.len() - 1] <= bound {
            break;
        }
    }
    process.terminate();
    assert_eq!(process.exit_code().await, Some(0));
    let (opened, ended) = counted.await.unwrap();
    eprintln!(
        "soak of {seconds} s: {} times something, of each kind {done:?}; {opened} WebSockets opened, {ended} ended; \
         open files {first:?} at first, {warm_files:?} warm, {last_files:?} at last; \
         private memory {:?} KiB, warm and after each round",
        done.iter().sum::<u64>(),
        memory.iter().map(|bytes| bytes >> 10).collect::<Vec<_>>(),
    );
    assert!(done.iter().all(|&times| times > 0), "{done:?}");
    assert_eq!(opened, ended);
    assert_eq!((last_files.sockets, last_files.others), (first.sockets, first.others));
    assert!(last_files.pipes <= first.pipes + KEPT_PIPES, "{last_files:?}");
    let [.., before, last] = memory[..] else { unreachable!("a round was run") };
    assert!(last <= before + MEMORY_BOUND, "each of {ROUNDS} rounds took more: {memory:?}");
}

#[tokio::test]
async fn nine_and_a_half_thousand_idle_connections_fit_into_one_process() {
    const COUNT: usize = 9_500;
    if wished().is_none() && !in_ci() {
        eprintln!("skipped: 9,500 connections take half a minute; set SWITCHGATE_SOAK_SECONDS");
        return;
    }
    if open_files::raise().is_some_and(|room| room < COUNT as u64) {
        eprintln!("skipped: the hard limit of open files allows fewer than {COUNT} connections here (ulimit -Hn)");
        return;
    }
    // The sockets of the gate are 19,000, so those of its peers lie elsewhere: the clients' are the test's, and the
    // upstream is a second program, whose embedded echo needs no further ones. The first one's own echo would do with
    // one socket each, and so show half of what a connection costs.
    let listener = "[[listener]]\nlisten = \"127.0.0.1:0\"\nmax_connections = 9600\n";
    let route = "[[route]]\nupstream = \"u\"\nidle_timeout = \"off\"\nclose_timeout = \"30s\"\n";
    // What is counted first must not end by itself on a machine that takes a minute for all this.
    let pool = "pool_idle_timeout = \"10m\"\n[limits]\nkeep_alive_timeout = \"10m\"\n";
    let start = |url: &str| format!("workers = {WORKERS}\n{listener}{route}[upstream.u]\nurl = \"{url}\"\n{pool}");
    let quiet = ("error,switchgate::server=info", "exec \"$0\" --log-format json");
    let upstream = Process::start_with(&start("builtin:echo"), quiet.0, quiet.1).await;
    let gate = start(&format!("http://{}", upstream.addresses[0])) + "[drain]\ngrace = \"60s\"\nspread = \"2s\"\n";
    let mut gate = Process::start_with(&gate, quiet.0, quiet.1).await;
    let room = gate.event("the limit of open files allows that many connections").await;
    assert!(room["room"].as_u64().unwrap() >= COUNT as u64, "{room}");

    let first = files_at_rest(&gate).await;
    let before = gate.private_memory();
    let mut clients = Vec::new();
    for at in 0..COUNT {
        let mut client = gate.connect().await;
        client.send(handshake("")).await;
        clients.push(client);
        // A few at a time are under way.
        if at >= 32 {
            assert_eq!(clients[at - 32].answer().await.status, 101);
        }
    }
    for client in &mut clients[COUNT - 32..] {
        assert_eq!(client.answer().await.status, 101);
    }
    assert_eq!(gate.open_files().sockets, first.sockets + 2 * COUNT);
    let idle = gate.private_memory();
    let each = idle.saturating_sub(before) / COUNT as u64;
    eprintln!(
        "{COUNT} idle connections, two sockets each: {each} bytes of private memory a connection \
         ({} KiB before, {} KiB with them)",
        before >> 10,
        idle >> 10,
    );
    assert!(each < 8 << 10, "{each} bytes a connection");
    for client in clients.iter_mut().step_by(250) {
        client.send(frame(TEXT, b"still here", MASK)).await;
        assert_eq!(client.frame().await.unwrap().payload, b"still here");
    }
    gate.terminate();
    for client in &mut clients {
        assert_eq!(client.expect_close().await, 1001);
        client.send(close(1001, MASK)).await;
    }
    assert_eq!(gate.exit_code().await, Some(0));
    let stopped = gate.all("stopped")[0];
    assert_eq!((&stopped["websockets_ended"], &stopped["websockets_cut"]), (&COUNT.into(), &0.into()));
}
