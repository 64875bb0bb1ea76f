//! Each row names its rule; the property compares with a slow decoder for any chunking.

use proptest::prelude::*;

use super::*;

fn rules(sender: Sender) -> FrameRules {
    FrameRules { sender, extensions: Extensions::None, max_frame_size: u64::MAX, max_message_size: u64::MAX }
}

/// A frame as anybody might write it.
pub(crate) fn frame(first: u8, payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let mut bytes = vec![first];
    let bit = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        short @ 0..=125 => bytes.push(bit | u8::try_from(short).unwrap()),
        medium @ 126..=0xffff => {
            bytes.push(bit | 126);
            bytes.extend(u16::try_from(medium).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(bit | 127);
            bytes.extend(u64::try_from(long).unwrap().to_be_bytes());
        }
    }
    bytes.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]));
    bytes
}

fn broken(sender: Sender, bytes: &[u8]) -> Option<FrameError> {
    let (rules, mut follower, mut at) = (rules(sender), Follower::default(), 0);
    loop {
        let followed = follower.follow(&bytes[at..], &rules, false);
        at += followed.pass;
        match followed.stop {
            Some(Stop::Broken(error)) => return Some(error),
            Some(Stop::Control(control)) => at += control.size,
            _ => return None,
        }
    }
}

#[test]
fn each_broken_rule_is_found_before_its_first_byte_passes() {
    use FrameError as E;
    let mask = [1, 2, 3, 4];
    for (what, bytes, error) in [
        ("§5.1 a client frame without a mask", frame(0x81, b"hi", None), E::Unmasked),
        ("§5.2 opcode 3", frame(0x83, b"", Some(mask)), E::Opcode),
        ("§5.2 opcode 11", frame(0x8b, b"", Some(mask)), E::Opcode),
        ("§5.2 RSV1", frame(0xc1, b"", Some(mask)), E::Reserved),
        ("§5.2 RSV3 on a control frame", frame(0x99, b"", Some(mask)), E::Reserved),
        ("§5.5 a Ping in pieces", frame(0x09, b"", Some(mask)), E::ControlFragmented),
        ("§5.5 a long Ping", frame(0x89, &[0; 126], Some(mask)), E::ControlLength),
        ("§5.4 a continuation of nothing", frame(0x80, b"", Some(mask)), E::Continuation),
        (
            "§5.4 a message inside another",
            [frame(0x01, b"a", Some(mask)), frame(0x81, b"b", Some(mask))].concat(),
            E::Interrupted,
        ),
        ("§5.2 126 in two bytes for 125", vec![0x82, 0xfe, 0, 125, 0, 0, 0, 0], E::Length),
        ("§5.2 127 in eight bytes for 65535", vec![0x82, 0xff, 0, 0, 0, 0, 0, 0, 255, 255], E::Length),
        ("§5.2 the top bit of the length", vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], E::Length),
        ("§5.5.1 half a code", frame(0x88, b"\x03", Some(mask)), E::Close(CloseError::HalfCode)),
        ("§7.4.1 1005 is never sent", frame(0x88, b"\x03\xed", Some(mask)), E::Close(CloseError::Code)),
        ("§7.4.2 999", frame(0x88, b"\x03\xe7", Some(mask)), E::Close(CloseError::Code)),
        ("§5.5.1 a reason that is not UTF-8", frame(0x88, b"\x03\xe8\xff", Some(mask)), E::Close(CloseError::Reason)),
        ("HTTP spoken into the tunnel", b"GET / HTTP/1.1\r\n".to_vec(), E::Opcode),
        ("HTTP spoken into the tunnel", b"POST / HTTP/1.1\r\n".to_vec(), E::Reserved),
    ] {
        assert_eq!(broken(Sender::Client, &bytes), Some(error), "{what}");
        let (rules, mut follower, mut passed) = (rules(Sender::Client), Follower::default(), 0);
        // Byte by byte no byte of the offending frame passes either.
        let mut held = Vec::new();
        let found = bytes.iter().find_map(|byte| {
            held.push(*byte);
            let followed = follower.follow(&held, &rules, false);
            passed += followed.pass;
            held.drain(..followed.pass);
            matches!(followed.stop, Some(Stop::Broken(_))).then_some(followed.stop)
        });
        assert_eq!(found, Some(Some(Stop::Broken(error))), "{what}");
        assert!(passed == 0 || error == E::Interrupted, "{what}: {passed} bytes passed");
    }
    assert_eq!(broken(Sender::Server, &frame(0x81, b"hi", Some(mask))), Some(FrameError::Masked));
}

#[test]
fn what_an_extension_may_do_passes_where_it_was_negotiated() {
    let follow = |extensions, first| {
        let rules = FrameRules { extensions, ..rules(Sender::Server) };
        Follower::default().follow(&frame(first, b"x", None), &rules, false).stop
    };
    let broken = |error| Some(Stop::Broken(error));
    assert_eq!(follow(Extensions::Deflate, 0xc1), None);
    assert_eq!(follow(Extensions::Deflate, 0xa1), broken(FrameError::Reserved));
    assert_eq!(follow(Extensions::Deflate, 0xc9), broken(FrameError::Reserved));
    assert_eq!(follow(Extensions::Unknown, 0xf3), None);
    assert_eq!(follow(Extensions::Unknown, 0xfb), None);
    assert_eq!(Extensions::negotiated(["permessage-deflate"]), Extensions::Deflate);
    assert_eq!(Extensions::negotiated(["permessage-deflate", "x"]), Extensions::Unknown);
    assert_eq!(Extensions::negotiated([]), Extensions::None);
}

#[test]
fn limits_hold_for_frames_and_for_whole_messages() {
    let rules = FrameRules { max_frame_size: 8, max_message_size: 10, ..rules(Sender::Server) };
    let stop = |bytes: &[u8]| Follower::default().follow(bytes, &rules, false).stop;
    assert_eq!(stop(&frame(0x82, &[0; 8], None)), None);
    assert_eq!(stop(&frame(0x82, &[0; 9], None)), Some(Stop::Broken(FrameError::FrameSize)));
    let two = |second: usize| [frame(0x02, &[0; 8], None), frame(0x80, &vec![0; second], None)].concat();
    assert_eq!(stop(&two(2)), None);
    assert_eq!(stop(&two(3)), Some(Stop::Broken(FrameError::MessageSize)));
    // The next message begins from nothing again.
    assert_eq!(stop(&[two(2), two(2)].concat()), None);
    assert_eq!(FrameError::MessageSize.code(), 1009);
}

#[test]
fn close_codes_of_the_registry_may_be_sent_and_no_others() {
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4999] {
        assert!(close::may_be_sent(code), "{code}");
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, u16::MAX] {
        assert!(!close::may_be_sent(code), "{code}");
    }
}

#[test]
fn a_control_frame_of_ours_is_read_back_as_it_was_meant() {
    for mask in [None, Some([9, 8, 7, 6])] {
        let sender = if mask.is_some() { Sender::Client } else { Sender::Server };
        let bytes = control(ControlKind::Close, &close::payload(1012, "bye"), mask);
        let followed = Follower::default().follow(&bytes, &rules(sender), false);
        let Some(Stop::Control(seen)) = followed.stop else { panic!("{followed:?}") };
        assert_eq!((seen.kind, seen.size), (ControlKind::Close, bytes.len()));
        assert_eq!(close::parse(&seen.payload(&bytes)), Ok(Some((1012, "bye"))));
    }
}

#[derive(Clone, Debug)]
struct Piece {
    control: Option<ControlKind>,
    payload: Vec<u8>,
    fin: bool,
}

fn pieces() -> impl Strategy<Value = Vec<Piece>> {
    let control = prop_oneof![
        3 => Just(None),
        1 => prop_oneof![Just(ControlKind::Ping), Just(ControlKind::Pong)].prop_map(Some),
    ];
    let sizes = prop_oneof![0usize..5, 120usize..130, 65_530usize..65_540];
    let piece = (control, sizes, any::<u8>(), any::<bool>()).prop_map(|(control, size, byte, fin)| Piece {
        payload: vec![byte; if control.is_some() { size.min(MAX_CONTROL) } else { size }],
        control,
        fin,
    });
    prop::collection::vec(piece, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn boundaries_messages_and_control_frames_are_those_of_a_slow_decoder(
        pieces in pieces(),
        mask in prop::option::of(any::<[u8; 4]>()),
        cuts in prop::collection::vec(1usize..9000, 1..20),
        to_boundary: bool,
    ) {
        let sender = if mask.is_some() { Sender::Client } else { Sender::Server };
        let (mut stream, mut ends, mut controls, mut messages, mut open) = (Vec::new(), vec![0], Vec::new(), 0, false);
        for piece in &pieces {
            match piece.control {
                Some(kind) => {
                    stream.extend(control(kind, &piece.payload, mask));
                    controls.push((kind, piece.payload.clone()));
                }
                None => {
                    let first = if open { 0 } else { 2 };
                    stream.extend(frame(if piece.fin { 0x80 | first } else { first }, &piece.payload, mask));
                    open = !piece.fin;
                    messages += u32::from(piece.fin);
                }
            }
            ends.push(stream.len());
        }
        let (rules, mut follower) = (rules(sender), Follower::default());
        let (mut held, mut passed, mut seen, mut counted): (Vec<u8>, usize, Vec<_>, u32) = Default::default();
        let mut rest = stream.as_slice();
        for cut in cuts.iter().cycle() {
            if rest.is_empty() { break }
            let (slice, further) = rest.split_at((*cut).min(rest.len()));
            rest = further;
            held.extend_from_slice(slice);
            let mut ask = to_boundary;
            loop {
                let followed = follower.follow(&held, &rules, ask);
                counted += followed.messages;
                held.drain(..followed.pass);
                passed += followed.pass;
                match followed.stop {
                    None => { prop_assert!(held.is_empty()); break }
                    Some(Stop::Partial) => { prop_assert!(held.len() < MAX_HEADER + MAX_CONTROL); break }
                    Some(Stop::Boundary) => {
                        prop_assert!(ends.contains(&passed) && follower.at_boundary());
                        ask = false;
                    }
                    Some(Stop::Control(control)) => {
                        seen.push((control.kind, control.payload(&held).to_vec()));
                        held.drain(..control.size);
                        passed += control.size;
                    }
                    Some(Stop::Broken(error)) => prop_assert!(false, "{error}"),
                }
            }
            if held.is_empty() {
                prop_assert_eq!(follower.at_boundary(), ends.contains(&passed));
            }
        }
        prop_assert_eq!(passed, stream.len());
        prop_assert_eq!(seen, controls);
        prop_assert_eq!(counted, messages);
    }

    #[test]
    fn no_bytes_make_it_panic(slices in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..10)) {
        let mut follower = Follower::default();
        let mut held = Vec::new();
        for slice in slices {
            held.extend(slice);
            let followed = follower.follow(&held, &rules(Sender::Client), false);
            prop_assert!(followed.pass <= held.len());
            held.drain(..followed.pass);
        }
    }
}
