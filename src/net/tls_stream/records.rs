//! rustls without its buffers: ciphertext in, plaintext and ciphertext out; no socket.

use rustls::{
    CommonState, Error,
    client::{ClientConnectionData, UnbufferedClientConnection},
    server::{ServerConnectionData, UnbufferedServerConnection},
    unbuffered::{
        ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError, UnbufferedStatus,
        WriteTraffic,
    },
};

/// Content type, version, length (RFC 8446 §5.1).
const HEADER: usize = 5;

/// Plaintext of a full record.
pub(super) const MAX_PLAIN: usize = 16 * 1024;

/// The longest record of either version: TLS 1.2 allows 2 KiB for its protection (RFC 5246 §6.2.3).
pub(super) const MAX_RECORD: usize = HEADER + MAX_PLAIN + 2048;

/// What a full record takes beyond its plaintext: header, explicit nonce and tag of TLS 1.2 with AES-GCM. TLS 1.3 and
/// ChaCha20 take 21 or 22.
const OVERHEAD_1_2: usize = HEADER + 8 + 16;
const OVERHEAD_1_3: usize = HEADER + 1 + 16;

/// Either side's connection of rustls.
pub trait Engine: Send + Unpin + 'static {
    /// rustls's mark of the side.
    type Data;

    /// Goes through `tls` up to the next thing that is ours to do.
    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data>;

    /// What both sides know of a connection.
    fn common(&self) -> &CommonState;
}

impl Engine for UnbufferedServerConnection {
    type Data = ServerConnectionData;

    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

impl Engine for UnbufferedClientConnection {
    type Data = ClientConnectionData;

    fn process<'c, 'i>(&'c mut self, tls: &'i mut [u8]) -> UnbufferedStatus<'c, 'i, Self::Data> {
        self.process_tls_records(tls)
    }

    fn common(&self) -> &CommonState {
        self
    }
}

/// What became of a run of ciphertext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Opened {
    /// Bytes from the front that are done with. What is left has no whole record, and must be shown again with more
    /// behind it.
    pub(super) consumed: usize,
    /// The peer said that nothing follows (close_notify).
    pub(super) closed: bool,
}

/// Goes through every whole record of `tls`: plaintext to `plain`, what must be answered to `out`.
pub(super) fn open<E: Engine>(
    engine: &mut E,
    tls: &mut [u8],
    mut plain: impl FnMut(&[u8]),
    out: &mut Vec<u8>,
) -> Result<Opened, Error> {
    let mut opened = Opened::default();
    loop {
        let UnbufferedStatus { discard, state } = engine.process(tls.get_mut(opened.consumed..).unwrap_or_default());
        opened.consumed += discard;
        match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    opened.consumed += record.discard;
                    plain(record.payload);
                }
            }
            ConnectionState::EncodeTlsData(message) => add(message, out)?,
            // What was encoded is in `out`, in order, and goes before anything else.
            ConnectionState::TransmitTlsData(sent) => sent.done(),
            ConnectionState::PeerClosed => opened.closed = true,
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed => {
                return Ok(opened);
            }
            // 0-RTT is off, and that is all there is.
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
}

/// What goes out besides answers.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outgoing<'a> {
    Plain(&'a [u8]),
    CloseNotify,
}

/// Encrypts into the front of `out` and says how much that made. `held` is what [`open`] left over.
pub(super) fn seal<E: Engine>(
    engine: &mut E,
    held: &mut [u8],
    outgoing: Outgoing<'_>,
    out: &mut Vec<u8>,
) -> Result<usize, Error> {
    let mut used = 0;
    loop {
        match engine.process(held).state? {
            ConnectionState::WriteTraffic(mut traffic) => return encrypt(&mut traffic, outgoing, out, used),
            ConnectionState::EncodeTlsData(message) => used = encode(message, out, used)?,
            ConnectionState::TransmitTlsData(sent) => sent.done(),
            _ => return Err(Error::HandshakeNotComplete),
        }
    }
}

/// The alert that rustls wants sent after an error, in `out`.
pub(super) fn farewell<E: Engine>(engine: &mut E, out: &mut Vec<u8>) {
    // As long as something is left to send, rustls looks at no input.
    while engine.common().wants_write() {
        match engine.process(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(message)) => match add(message, out) {
                Ok(()) => {}
                Err(_) => return,
            },
            Ok(ConnectionState::ReadTraffic(mut dropped)) => while dropped.next_record().is_some() {},
            _ => return,
        }
    }
}

fn add<D>(message: EncodeTlsData<'_, D>, out: &mut Vec<u8>) -> Result<(), Error> {
    let used = out.len();
    let encoded = encode(message, out, used);
    out.truncate(*encoded.as_ref().unwrap_or(&used));
    encoded.map(|_| ())
}

fn encode<D>(mut message: EncodeTlsData<'_, D>, out: &mut Vec<u8>, used: usize) -> Result<usize, Error> {
    write_at(out, used, 0, |room| match message.encode(room) {
        Ok(written) => Ok(Some(written)),
        Err(EncodeError::InsufficientSize(size)) => Err(size),
        Err(EncodeError::AlreadyEncoded) => Ok(None),
    })
}

fn encrypt<D>(
    traffic: &mut WriteTraffic<'_, D>,
    outgoing: Outgoing<'_>,
    out: &mut Vec<u8>,
    used: usize,
) -> Result<usize, Error> {
    let expected = match outgoing {
        Outgoing::Plain(bytes) => with_overhead(bytes.len(), OVERHEAD_1_2),
        Outgoing::CloseNotify => 0,
    };
    write_at(out, used, expected, |room| {
        let encrypted = match outgoing {
            Outgoing::Plain(bytes) => traffic.encrypt(bytes, room),
            Outgoing::CloseNotify => traffic.queue_close_notify(room),
        };
        match encrypted {
            Ok(written) => Ok(Some(written)),
            Err(EncryptError::InsufficientSize(size)) => Err(size),
            Err(EncryptError::EncryptExhausted) => Ok(None),
        }
    })
}

/// Writes behind the `used` bytes of `out`, which grows if it must and never shrinks. Returns what is used then.
fn write_at(
    out: &mut Vec<u8>,
    used: usize,
    expected: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<Option<usize>, InsufficientSizeError>,
) -> Result<usize, Error> {
    let mut room = expected;
    // Twice: what does not fit at first says how much it takes.
    for _ in 0..2 {
        if out.len() < used + room {
            out.resize(used + room, 0);
        }
        match write(out.get_mut(used..).unwrap_or_default()) {
            Ok(Some(written)) => return Ok(used + written),
            Ok(None) => break,
            Err(InsufficientSizeError { required_size }) => room = required_size,
        }
    }
    Err(Error::EncryptError)
}

/// The ciphertext of `plain` bytes in full records.
fn with_overhead(plain: usize, overhead: usize) -> usize {
    plain + overhead * plain.div_ceil(MAX_PLAIN)
}

/// How much ciphertext brings `plain` bytes, if they come in full records. Reads of just that much end with a record.
pub(super) fn ciphertext_of(common: &CommonState, plain: usize) -> usize {
    let is_1_2 = common.protocol_version() == Some(rustls::ProtocolVersion::TLSv1_2);
    with_overhead(plain, if is_1_2 { OVERHEAD_1_2 } else { OVERHEAD_1_3 })
}

/// How much is missing of the record that `held` begins with, where its header is there.
pub(super) fn missing(held: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low, ..] = held else {
        return None;
    };
    Some((HEADER + usize::from(u16::from_be_bytes([high, low]))).saturating_sub(held.len()))
}
