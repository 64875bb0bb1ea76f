//! What matching an `Origin` against an allow list costs: the first entry, the last of many, and none of them.
#![allow(clippy::expect_used, reason = "a benchmark of what does not work should stop")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, header::ORIGIN};
use switchgate::protocol::origin::{AllowEntry, Origin, OriginFields, OriginPolicy};

fn policy(entries: &[&str]) -> OriginPolicy {
    let allow = entries.iter().map(|entry| AllowEntry::parse(entry).expect("an entry")).collect();
    OriginPolicy { allow, ..OriginPolicy::default() }
}

fn origin(criterion: &mut Criterion) {
    let own = Origin::of("https", "chat.example.com", None);
    let short = policy(&["same-origin", "https://app.example.com"]);
    let names: Vec<String> = (0..100).map(|at| format!("https://*.tenant-{at}.example.com")).collect();
    let long = policy(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let cases = [
        ("origin: same-origin", &short, "https://chat.example.com"),
        ("origin: second of two", &short, "https://app.example.com"),
        ("origin: refused by two", &short, "https://evil.example.net"),
        ("origin: last of a hundred wildcards", &long, "https://a.tenant-99.example.com"),
        ("origin: refused by a hundred wildcards", &long, "https://evil.example.net"),
    ];
    for (name, policy, value) in cases {
        let headers = HeaderMap::from_iter([(ORIGIN, HeaderValue::from_static(value))]);
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| black_box(policy).check(black_box(&headers), &own, OriginFields::Standard))
        });
    }
}

criterion_group!(benches, origin);
criterion_main!(benches);
