//! What following frames costs, for slices as the relay reads them.
#![allow(clippy::expect_used, reason = "a benchmark of what does not work should stop")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use switchgate::protocol::websocket::frame::{Extensions, Follower, FrameRules, Sender};

const RULES: FrameRules = FrameRules {
    sender: Sender::Client,
    extensions: Extensions::None,
    max_frame_size: u64::MAX,
    max_message_size: u64::MAX,
};

/// One masked binary frame.
fn message(size: usize) -> Vec<u8> {
    let mut frame = vec![0x82];
    match u16::try_from(size) {
        Ok(short @ 0..=125) => frame.push(0x80 | u8::try_from(short).expect("seven bits")),
        Ok(middle) => {
            frame.push(0xfe);
            frame.extend(middle.to_be_bytes());
        }
        Err(_) => {
            frame.push(0xff);
            frame.extend(u64::try_from(size).expect("a size").to_be_bytes());
        }
    }
    frame.extend([1, 2, 3, 4]);
    frame.resize(frame.len() + size, 7);
    frame
}

fn follow(criterion: &mut Criterion) {
    for (name, size, count) in [("one of 64 B", 64, 1), ("one of 4 KiB", 4096, 1), ("900 of 64 B", 64, 900)] {
        let slice = message(size).repeat(count);
        let mut group = criterion.benchmark_group("follow");
        group.throughput(Throughput::Bytes(u64::try_from(slice.len()).expect("a length")));
        group.bench_function(name, |bencher| {
            let mut follower = Follower::default();
            bencher.iter(|| follower.follow(black_box(&slice), &RULES, false));
        });
        group.finish();
    }
}

criterion_group!(benches, follow);
criterion_main!(benches);
