//! Clients that are honest, in many ways, and floods.

use proptest::prelude::*;

use super::{follower::END_HEADERS, *};

const STREAMS: u32 = 256;
const WINDOW: u32 = 64 * 1024;
const MB: u64 = 1_000_000;

fn frame_of(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[a, b, c, kind, flags][..], &stream.to_be_bytes(), payload].concat()
}

fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
    frame_of(kind, flags, 1, &vec![7; length])
}

fn update(stream: u32, increment: u32) -> Vec<u8> {
    frame_of(WINDOW_UPDATE, 0, stream, &increment.to_be_bytes())
}

fn begun() -> Meter {
    let mut meter = Meter::new(STREAMS, WINDOW);
    meter.received(&[b'P'; 24], Duration::ZERO);
    meter
}

/// How many of these pass at once.
fn allowed(meter: &mut Meter, frame: &[u8]) -> u32 {
    (0..MOST_UPDATES * 2)
        .find(|_| {
            meter.received(frame, Duration::ZERO);
            meter.fault().is_some()
        })
        .unwrap_or(u32::MAX)
}

#[test]
fn noise_has_an_end_and_work_has_none() {
    const PRIORITY: u8 = 2;
    const ALL: u32 = BURST + STREAMS * RESET_COST;
    for (name, kind, flags, length, expected) in [
        ("ping", PING, 0, 8, ALL),
        ("answer to no ping", PING, ACK, 8, ALL),
        ("settings", SETTINGS, 0, 0, ALL / 5),
        ("answer to no settings", SETTINGS, ACK, 0, ALL / 5),
        ("reset", RST_STREAM, 0, 4, ALL / RESET_COST),
        ("empty data", DATA, 0, 0, ALL),
        ("padding", DATA, PADDED, 256, ALL),
        ("priority", PRIORITY, 0, 5, ALL),
        ("window update", WINDOW_UPDATE, 0, 4, ALL),
        ("small continuation", CONTINUATION, 0, 1, ALL / 5),
        ("unknown", 0xfa, 0, 0, ALL),
        ("data", DATA, 0, 1, u32::MAX),
        ("padded data", DATA, PADDED, 257, u32::MAX),
        ("end of a stream that has ended", DATA, END_STREAM, 0, ALL + 1),
        ("request", HEADERS, END_HEADERS, 10, u32::MAX),
        ("large continuation", CONTINUATION, 0, 16_384, u32::MAX),
    ] {
        // One stream whose window is never used up.
        let mut meter = Meter::new(STREAMS, 1 << 30);
        meter.received(&[&[b'P'; 24], frame(HEADERS, END_HEADERS, 10).as_slice()].concat(), Duration::ZERO);
        assert_eq!(allowed(&mut meter, &frame(kind, flags, length)), expected, "{name}");
    }
}

#[test]
fn data_on_a_stream_that_the_peer_has_ended_is_noise_by_its_size() {
    const ALL: u32 = BURST + STREAMS * RESET_COST;
    for begin in [frame(HEADERS, END_HEADERS | END_STREAM, 10), Vec::new()] {
        for (flags, length, cost) in [(0, 1, 1), (END_STREAM, 0, 1), (0, 255, 1), (0, 256, 2), (0, 16_000, 63)] {
            let mut meter = begun();
            meter.received(&begin, Duration::ZERO);
            assert_eq!(allowed(&mut meter, &frame(DATA, flags, length)), ALL / cost, "{length} bytes");
        }
    }
}

#[test]
fn ends_of_streams_are_work() {
    let mut meter = begun();
    for number in 0..100_000 {
        let stream = number * 2 + 1;
        meter.received(&frame_of(HEADERS, END_HEADERS, stream, &[7; 10]), Duration::ZERO);
        meter.received(&frame_of(DATA, END_STREAM, stream, &[]), Duration::ZERO);
    }
    assert_eq!(meter.fault(), None);
}

#[test]
fn time_fills_the_budget() {
    let (mut meter, ping) = (begun(), frame(PING, 0, 8));
    for second in 0..60 {
        for _ in 0..REFILL {
            meter.received(&ping, Duration::from_secs(second));
        }
    }
    assert_eq!(meter.fault(), None);
}

/// How a client returns the windows of what it reads.
struct Returns {
    name: &'static str,
    /// Bytes of each update on the stream, and on the connection; 0 is once for each frame.
    stream: u64,
    connection: u64,
}

const CLIENTS: [Returns; 9] = [
    Returns { name: "Go", stream: 4096, connection: 4096 },
    Returns { name: "Go with gzip", stream: 2048, connection: 2048 },
    Returns { name: "1 KiB", stream: 1024, connection: 1024 },
    Returns { name: "512 bytes", stream: 512, connection: 512 },
    Returns { name: "256 bytes", stream: 256, connection: 256 },
    Returns { name: "each frame", stream: 0, connection: 0 },
    Returns { name: "each frame, and the connection seldom", stream: 0, connection: 1 << 20 },
    Returns { name: "half a window (nghttp2, Java, curl)", stream: 32_768, connection: 32_768 },
    Returns { name: "browsers", stream: 3 << 20, connection: 7 << 20 },
];

/// A client that returns all it was sent whenever so much is in flight.
struct Download<'a> {
    meter: Meter,
    client: &'a Returns,
    /// Sent and not returned, on the stream and on the connection.
    unread: [u64; 2],
    frames: u64,
}

impl<'a> Download<'a> {
    fn of(client: &'a Returns) -> Self {
        Self { meter: begun(), client, unread: [0, 0], frames: 0 }
    }

    fn send(&mut self, length: u64) {
        static PAYLOAD: [u8; 16_384] = [0; 16_384];
        let [_, a, b, c] = u32::try_from(length).unwrap().to_be_bytes();
        self.meter.sent(&[a, b, c, DATA, 0, 0, 0, 0, 1]);
        self.meter.sent(&PAYLOAD[..usize::try_from(length).unwrap()]);
        self.unread = self.unread.map(|unread| unread + length);
        self.frames += 1;
    }

    fn read_all(&mut self, now: Duration) {
        for (level, step) in [self.client.stream, self.client.connection].into_iter().enumerate() {
            let (count, size) = match step {
                0 => (self.frames, self.unread[level] / self.frames.max(1)),
                step => (self.unread[level] / step, step),
            };
            let bytes = update(1 - u32::try_from(level).unwrap(), u32::try_from(size).unwrap());
            for _ in 0..count {
                self.meter.received(&bytes, now);
            }
            self.unread[level] -= if step == 0 { self.unread[level] } else { count * step };
        }
        self.frames = 0;
    }
}

#[test]
fn a_download_is_no_flood_however_its_windows_are_returned() {
    for client in &CLIENTS {
        for (frame, in_flight) in [(16_384, 65_536), (16_384, 64 << 20), (4_100, 65_536)] {
            let mut download = Download::of(client);
            // Few make such small steps, and each takes a test its time.
            let mut left = if (1..1024).contains(&client.stream) { 70 * MB } else { 200 * MB };
            // No time passes, so that nothing but the download gives anything back.
            while left > 0 {
                let mut flight = in_flight.min(left);
                left -= flight;
                while flight > 0 {
                    let now = flight.min(frame);
                    download.send(now);
                    flight -= now;
                }
                download.read_all(Duration::ZERO);
            }
            assert_eq!(download.meter.fault(), None, "{}: frames of {frame}, {in_flight} in flight", client.name);
        }
    }
}

#[test]
fn what_was_sent_may_be_read_after_a_pause_and_at_any_pace() {
    // A hundred streams with 4 MiB each, which are not read for a while: Go's client has such windows.
    for client in CLIENTS.iter().filter(|client| client.stream >= 4096) {
        let mut download = Download::of(client);
        (0..100 * 4 * 64).for_each(|_| download.send(16_384));
        // The budget itself goes for something else.
        let ping = frame(PING, 0, 8);
        (0..download.meter.account.burst).for_each(|_| download.meter.received(&ping, Duration::ZERO));
        download.read_all(Duration::ZERO);
        assert_eq!(download.meter.fault(), None, "{}", client.name);
    }
    // 20 Mbit/s in steps of 2 KiB on both levels: 2,441 updates a second.
    let client = Returns { name: "paced", stream: 2048, connection: 2048 };
    let mut download = Download::of(&client);
    for tick in 0..60 * 20 {
        for _ in 0..8 {
            download.send(15_625);
        }
        download.read_all(Duration::from_millis(tick * 50));
    }
    assert_eq!(download.meter.fault(), None);
}

#[test]
fn tiny_messages_may_be_answered_one_by_one() {
    // Each with an update on both levels, a PING of the client's own and an answer to nothing.
    for length in [2, 6, 127, 256, 257] {
        let mut meter = begun();
        let bytes = [update(1, 6), update(0, 6), frame(PING, 0, 8), frame(PING, ACK, 8)].concat();
        for _ in 0..100_000 {
            meter.sent(&frame(DATA, 0, length));
            meter.received(&bytes, Duration::ZERO);
        }
        assert_eq!(meter.fault(), None, "{length}");
    }
}

#[test]
fn answers_to_ping_and_settings_of_this_side_cost_nothing() {
    for kind in [PING, SETTINGS] {
        let mut meter = begun();
        for _ in 0..10_000 {
            meter.sent(&frame(kind, 0, 0));
            meter.received(&frame(kind, ACK, 0), Duration::ZERO);
        }
        assert_eq!(meter.fault(), None, "{kind}");
    }
}

#[test]
fn a_page_may_be_left_with_all_its_streams_again_and_again() {
    let (mut meter, request, reset) = (begun(), frame(HEADERS, END_HEADERS, 30), frame(RST_STREAM, 0, 4));
    // Once before anything was answered.
    for bytes in [&request, &reset] {
        (0..STREAMS).for_each(|_| meter.received(bytes, Duration::ZERO));
    }
    assert_eq!(meter.fault(), None);
    let mut meter = begun();
    // And each time when everything was, as with WebSockets.
    for _ in 0..100 {
        (0..STREAMS).for_each(|_| meter.received(&request, Duration::ZERO));
        (0..STREAMS).for_each(|_| meter.sent(&request));
        (0..STREAMS).for_each(|_| meter.received(&reset, Duration::ZERO));
    }
    assert_eq!(meter.fault(), None);
}

#[test]
fn resets_are_weighed_against_requests() {
    let (mut meter, request, reset) = (begun(), frame(HEADERS, 0x5, 30), frame(RST_STREAM, 0, 4));
    let rapid = (0..10_000).find(|_| {
        meter.received(&request, Duration::ZERO);
        meter.received(&reset, Duration::ZERO);
        meter.fault().is_some()
    });
    let burst = BURST + STREAMS * RESET_COST;
    assert!((burst / 10..burst / 7).contains(&rapid.unwrap()), "{rapid:?}");
}

#[test]
fn what_a_download_allows_is_in_proportion_to_it_and_bounded() {
    const ALL: u32 = BURST + STREAMS * RESET_COST;
    let piece = frame(DATA, 0, 16_384);
    // Two updates for each 256 bytes, and no more than the bound.
    for (frames, updates) in [(0, 0), (1, 128), (100, 12_800), (8_192, MOST_UPDATES), (131_072, MOST_UPDATES)] {
        for (noise, expected) in [(update(0, 1), ALL + updates), (frame(PING, 0, 8), ALL)] {
            let mut meter = begun();
            (0..frames).for_each(|_| meter.sent(&piece));
            assert_eq!(allowed(&mut meter, &noise), expected, "{frames}");
        }
    }
}

#[test]
fn a_stream_that_sends_beyond_its_window_is_found() {
    type Play = fn(&mut Meter);
    let plays: [(&str, Option<Fault>, Play); 6] = [
        ("a window", None, |meter| (0..4).for_each(|_| meter.received(&frame(DATA, 0, 16_384), Duration::ZERO))),
        ("one byte more", Some(Fault::Overrun), |meter| {
            (0..4).for_each(|_| meter.received(&frame(DATA, 0, 16_384), Duration::ZERO));
            meter.received(&frame(DATA, 0, 1), Duration::ZERO);
        }),
        ("a window that was opened", None, |meter| {
            for _ in 0..100 {
                meter.received(&frame(DATA, 0, 16_384), Duration::ZERO);
                meter.sent(&update(1, 16_384));
            }
        }),
        ("that of the connection only", Some(Fault::Overrun), |meter| {
            for _ in 0..5 {
                meter.received(&frame(DATA, 0, 16_384), Duration::ZERO);
                meter.sent(&update(0, 16_384));
            }
        }),
        ("the rest, after a reset", None, |meter| {
            meter.sent(&frame(RST_STREAM, 0, 4));
            (0..4).for_each(|_| meter.received(&frame(DATA, 0, 16_384), Duration::ZERO));
        }),
        ("on and on, after a reset", Some(Fault::Overrun), |meter| {
            meter.sent(&frame(RST_STREAM, 0, 4));
            for _ in 0..5 {
                meter.received(&frame(DATA, 0, 16_384), Duration::ZERO);
                meter.sent(&update(0, 16_384));
            }
        }),
    ];
    for (name, expected, play) in plays {
        let mut meter = begun();
        meter.received(&frame(HEADERS, END_HEADERS, 10), Duration::ZERO);
        play(&mut meter);
        assert_eq!(meter.fault(), expected, "{name}");
    }
}

#[test]
fn what_is_unfinished_is_known_at_each_byte() {
    use Unfinished::{Data, Head};
    let frames = [
        frame(SETTINGS, 0, 6),
        frame(HEADERS, 0, 3),
        frame(CONTINUATION, 0, 2),
        frame(CONTINUATION, END_HEADERS, 0),
        frame(DATA, 0, 5),
        frame(DATA, 0, 0),
        update(0, 9),
    ];
    let mut meter = Meter::new(STREAMS, WINDOW);
    for byte in [b'P'; 24] {
        assert_eq!(meter.unfinished(), None, "in the preface");
        meter.received(&[byte], Duration::ZERO);
    }
    let mut seen = Vec::new();
    for byte in frames.concat() {
        seen.push(match meter.unfinished() {
            None => '.',
            Some(Head(number)) => char::from(b'0' + u8::try_from(number).unwrap()),
            Some(Data(_)) => 'd',
        });
        meter.received(&[byte], Duration::ZERO);
    }
    let expected = [
        ".11111111111111",
        // One block, whatever frames it has.
        ".22222222222",
        "22222222222",
        "222222222",
        ".33333333ddddd",
        ".44444444",
        ".555555555555",
    ];
    assert_eq!(String::from_iter(seen), expected.concat());
    assert_eq!(meter.unfinished(), None);
}

proptest! {
    #[test]
    fn pieces_make_no_difference(
        frames in prop::collection::vec((0u8..10, any::<u8>(), 0usize..40), 0..60),
        cuts in prop::collection::vec(1usize..30, 1..60),
    ) {
        let all: Vec<u8> = frames.iter().flat_map(|&(kind, flags, length)| frame(kind, flags, length)).collect();
        let (mut whole, mut heads) = (Follower::of_server(), Vec::new());
        whole.follow(&all, |head| heads.push(head));
        prop_assert_eq!(heads.len(), frames.len());
        let (mut pieces, mut rest, mut seen) = (Follower::of_server(), all.as_slice(), Vec::new());
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*cut));
            pieces.follow(now, |head| seen.push(head));
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(seen, heads);
    }

    /// A client that returns its windows in steps of 256 bytes or more is never cut, in whatever order things happen.
    #[test]
    fn whoever_returns_what_was_sent_is_no_flood(
        steps in (256u64..70_000, 256u64..70_000),
        turns in prop::collection::vec((prop::collection::vec(1u64..16_384, 0..40), any::<bool>()), 0..200),
    ) {
        let client = Returns { name: "any", stream: steps.0, connection: steps.1 };
        let mut download = Download::of(&client);
        for (frames, reads) in turns {
            frames.into_iter().for_each(|length| download.send(length));
            if reads {
                download.read_all(Duration::ZERO);
            }
        }
        download.read_all(Duration::ZERO);
        prop_assert_eq!(download.meter.fault(), None);
        // Not even the budget was touched.
        prop_assert_eq!(download.meter.account.budget, download.meter.account.burst);
    }
}
