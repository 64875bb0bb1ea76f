//! Fewer and larger reads and writes for the h2 crate.
//!
//! It flushes behind each DATA frame of a kilobyte or more, in two pieces, and reads about a frame at a time. Here what
//! it writes is gathered, to leave together when its connection has been polled, and what has come is read at once. A
//! connection at rest owns no buffer; those it works with belong to the thread.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    io, mem,
    ops::Range,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that are gathered, and most that are read ahead: four TLS records pay for a system call well enough.
const MOST: usize = 64 * 1024;

/// Reads in one turn before other tasks get theirs.
const READS_A_TURN: usize = 16;

thread_local! {
    static SPARE_AHEAD: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static SPARE_GATHERED: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// The end that the h2 crate reads and writes.
pub struct BatchedIo<T>(Arc<Mutex<State<T>>>);

/// The other end of a [`BatchedIo`], for whoever polls the connection on it.
pub struct Batch<T>(Arc<Mutex<State<T>>>);

struct State<T> {
    io: T,
    /// Whether a flush waits for [`Batch::send`].
    gathers: bool,
    /// Written and not sent yet, behind those that are.
    gathered: Vec<u8>,
    sent: usize,
    /// Whether the h2 crate has more than there was room for.
    holds_back: bool,
    /// A full-sized buffer where something of it is unread, or none.
    ahead: Vec<u8>,
    unread: Range<usize>,
    /// In this turn.
    reads: usize,
    /// What sending said. The h2 crate is told when it writes next, after it has read what there is.
    failed: Option<io::Error>,
}

impl<T> BatchedIo<T> {
    /// Both ends. A flush is a flush until [`Batch::gather`].
    pub fn new(io: T) -> (Self, Batch<T>) {
        let state = Arc::new(Mutex::new(State {
            io,
            gathers: false,
            gathered: Vec::new(),
            sent: 0,
            holds_back: false,
            ahead: Vec::new(),
            unread: 0..0,
            reads: 0,
            failed: None,
        }));
        (Self(Arc::clone(&state)), Batch(state))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Batch<T> {
    /// `connection` with a turn for each time that it is polled.
    pub async fn turns<F: Future>(self, connection: F) -> F::Output {
        self.gather();
        let mut connection = pin!(connection);
        poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            self.send(cx);
            polled
        })
        .await
    }

    /// From now on there are turns: so much is read in one, and what is written leaves at its end, unless it is too
    /// much.
    pub fn gather(&self) {
        lock(&self.0).gathers = true;
    }

    /// Ends a turn and sends what was gathered. To be called whenever the connection has been polled: nobody else does
    /// it. Answers whether everything is on its way: a stream that has ended for the h2 crate may not have been sent yet.
    pub fn send(&self, cx: &mut Context<'_>) -> bool {
        let mut state = lock(&self.0);
        state.reads = 0;
        match state.poll_send(cx) {
            Poll::Ready(Ok(())) => !state.holds_back,
            Poll::Ready(Err(error)) => {
                state.failed = Some(error);
                cx.waker().wake_by_ref();
                false
            }
            Poll::Pending => false,
        }
    }
}

/// Only the task of the connection asks, one end after the other; a panic in it ends the connection anyway.
fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<T: AsyncRead + AsyncWrite + Unpin> State<T> {
    /// Ready when everything is taken.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest) = self.gathered.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(Pin::new(&mut self.io).poll_write(cx, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        self.sent = 0;
        if self.gathered.capacity() > 0 {
            self.gathered.clear();
            SPARE_GATHERED.set(mem::take(&mut self.gathered));
        }
        Pin::new(&mut self.io).poll_flush(cx)
    }

    /// Reads what there is into an empty buffer.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.gathers {
            if self.reads == READS_A_TURN {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            self.reads += 1;
        }
        let mut buffer = SPARE_AHEAD.take();
        buffer.resize(MOST, 0);
        let mut fresh = ReadBuf::new(&mut buffer);
        let polled = Pin::new(&mut self.io).poll_read(cx, &mut fresh);
        let read = fresh.filled().len();
        if read == 0 {
            SPARE_AHEAD.set(buffer);
        } else {
            (self.ahead, self.unread) = (buffer, 0..read);
        }
        polled
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncRead for BatchedIo<T> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        if state.unread.is_empty() {
            ready!(state.poll_ahead(cx))?;
        }
        let unread = state.ahead.get(state.unread.clone()).unwrap_or_default();
        let now = unread.get(..buffer.remaining()).unwrap_or(unread);
        buffer.put_slice(now);
        state.unread.start += now.len();
        if state.unread.is_empty() && !state.ahead.is_empty() {
            SPARE_AHEAD.set(mem::take(&mut state.ahead));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for BatchedIo<T> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = lock(&self.0);
        if let Some(error) = state.failed.take() {
            return Poll::Ready(Err(error));
        }
        if state.gathered.len() >= MOST {
            state.holds_back = true;
            ready!(state.poll_send(cx))?;
        }
        state.holds_back = false;
        if state.gathered.capacity() == 0 {
            state.gathered = SPARE_GATHERED.take();
        }
        let room = MOST - state.gathered.len();
        let now = bytes.get(..room).unwrap_or(bytes);
        state.gathered.extend_from_slice(now);
        Poll::Ready(Ok(now.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        match state.failed.take() {
            Some(error) => Poll::Ready(Err(error)),
            None if state.gathers => Poll::Ready(Ok(())),
            None => state.poll_send(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = lock(&self.0);
        ready!(state.poll_send(cx))?;
        Pin::new(&mut state.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, task::Waker};

    use super::*;

    /// What a wire gives and has taken.
    #[derive(Default)]
    struct Line {
        to_read: VecDeque<Vec<u8>>,
        reads: usize,
        /// How much it still takes.
        room: usize,
        written: Vec<Vec<u8>>,
        broken: bool,
    }

    #[derive(Clone, Default)]
    struct FakeWire(Arc<Mutex<Line>>);

    impl AsyncRead for FakeWire {
        fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            let mut line = self.0.lock().unwrap();
            line.reads += 1;
            let Some(mut bytes) = line.to_read.pop_front() else { return Poll::Pending };
            let later = bytes.split_off(bytes.len().min(buffer.remaining()));
            if !later.is_empty() {
                line.to_read.push_front(later);
            }
            buffer.put_slice(&bytes);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for FakeWire {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let mut line = self.0.lock().unwrap();
            if line.broken {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            let count = bytes.len().min(line.room);
            if count == 0 {
                return Poll::Pending;
            }
            line.room -= count;
            line.written.push(bytes[..count].to_vec());
            Poll::Ready(Ok(count))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.lock().unwrap().written.push(b"end".to_vec());
            Poll::Ready(Ok(()))
        }
    }

    fn started(room: usize) -> (FakeWire, BatchedIo<FakeWire>, Batch<FakeWire>) {
        let wire = FakeWire::default();
        wire.0.lock().unwrap().room = room;
        let (io, batch) = BatchedIo::new(wire.clone());
        (wire, io, batch)
    }

    fn cx() -> Context<'static> {
        Context::from_waker(Waker::noop())
    }

    /// Different at every place for long.
    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at % 251).to_le_bytes()[0]).collect()
    }

    fn write(io: &mut BatchedIo<FakeWire>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(io).poll_write(&mut cx(), bytes)
    }

    /// What one read brings; `None` is nothing for now.
    fn read(io: &mut BatchedIo<FakeWire>, room: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; room];
        let mut buffer = ReadBuf::new(&mut bytes);
        let polled = Pin::new(io).poll_read(&mut cx(), &mut buffer);
        polled.is_ready().then(|| buffer.filled().to_vec())
    }

    fn flush(io: &mut BatchedIo<FakeWire>) {
        assert!(matches!(Pin::new(io).poll_flush(&mut cx()), Poll::Ready(Ok(()))));
    }

    #[test]
    fn what_is_written_in_one_turn_leaves_together() {
        let (wire, mut io, batch) = started(usize::MAX);
        assert!(write(&mut io, b"settings").is_ready());
        flush(&mut io);
        assert_eq!(wire.0.lock().unwrap().written, [b"settings"], "a handshake waits for nobody");
        batch.gather();
        for part in [&b"one"[..], b"two", b"three"] {
            assert!(write(&mut io, part).is_ready());
            flush(&mut io);
        }
        assert_eq!(wire.0.lock().unwrap().written.len(), 1);
        batch.send(&mut cx());
        assert_eq!(wire.0.lock().unwrap().written[1..], [b"onetwothree"]);
        batch.send(&mut cx());
        assert_eq!(wire.0.lock().unwrap().written.len(), 2);
    }

    #[test]
    fn a_wire_that_takes_nothing_holds_its_writer_back() {
        let (wire, mut io, batch) = started(0);
        batch.gather();
        let bytes = pattern(3 * MOST);
        let mut taken = 0;
        for room in [0, 1, MOST / 2, MOST, 10 * MOST] {
            wire.0.lock().unwrap().room = room;
            batch.send(&mut cx());
            while taken < bytes.len()
                && let Poll::Ready(count) = write(&mut io, &bytes[taken..])
            {
                let count = count.unwrap();
                assert!(count > 0, "it would be asked for ever");
                taken += count;
            }
            assert!(room > 0 || taken == MOST, "{taken}");
        }
        assert_eq!(taken, bytes.len());
        assert!(Pin::new(&mut io).poll_shutdown(&mut cx()).is_ready());
        let written = wire.0.lock().unwrap().written.clone();
        assert_eq!(written.concat(), [&bytes[..], b"end"].concat());
    }

    #[test]
    fn whoever_was_held_back_has_not_sent_everything() {
        let (wire, mut io, batch) = started(0);
        batch.gather();
        assert!(batch.send(&mut cx()), "nothing");
        assert!(write(&mut io, &pattern(MOST)).is_ready() && !batch.send(&mut cx()));
        assert!(write(&mut io, b"more").is_pending());
        // Room comes between its look and ours; it will look again.
        wire.0.lock().unwrap().room = usize::MAX;
        assert!(!batch.send(&mut cx()));
        assert!(write(&mut io, b"more").is_ready() && batch.send(&mut cx()));
    }

    #[test]
    fn what_has_come_is_read_at_once_and_handed_on_in_order() {
        let (wire, mut io, _batch) = started(0);
        let bytes = pattern(MOST + 1000);
        wire.0.lock().unwrap().to_read.push_back(bytes.clone());
        let mut came = Vec::new();
        while let Some(some) = read(&mut io, 977) {
            came.extend_from_slice(&some);
        }
        assert_eq!(came, bytes);
        assert_eq!(wire.0.lock().unwrap().reads, 3, "one of which found nothing");
        wire.0.lock().unwrap().to_read.push_back(Vec::new());
        assert_eq!(read(&mut io, 977), Some(Vec::new()), "the end");
    }

    #[test]
    fn whoever_sends_without_end_is_read_a_while_and_again_in_the_next_turn() {
        let (wire, mut io, batch) = started(0);
        batch.gather();
        wire.0.lock().unwrap().to_read = vec![pattern(100); 2 * READS_A_TURN].into();
        for _ in 0..2 {
            assert_eq!((0..).take_while(|_| read(&mut io, 100).is_some()).count(), READS_A_TURN);
            batch.send(&mut cx());
        }
    }

    #[test]
    fn one_connection_sees_nothing_of_another_on_its_thread() {
        let (one_wire, mut one, _) = started(0);
        let (other_wire, mut other, other_batch) = started(usize::MAX);
        assert!(write(&mut one, b"held back").is_ready());
        one_wire.0.lock().unwrap().to_read.push_back(b"for the one".to_vec());
        assert_eq!(read(&mut one, 3).as_deref(), Some(&b"for"[..]));
        assert_eq!(read(&mut other, 100), None);
        other_wire.0.lock().unwrap().to_read.push_back(b"other".to_vec());
        assert_eq!(read(&mut other, 100).as_deref(), Some(&b"other"[..]));
        assert!(write(&mut other, b"hers").is_ready());
        other_batch.send(&mut cx());
        assert_eq!(other_wire.0.lock().unwrap().written, [b"hers"]);
        assert_eq!(read(&mut one, 100).as_deref(), Some(&b" the one"[..]));
    }

    #[test]
    fn an_error_of_sending_is_told_after_what_there_is_to_read() {
        let (wire, mut io, batch) = started(0);
        batch.gather();
        assert!(write(&mut io, b"lost").is_ready());
        {
            let mut line = wire.0.lock().unwrap();
            line.broken = true;
            line.to_read.push_back(b"last words".to_vec());
        }
        batch.send(&mut cx());
        assert_eq!(read(&mut io, 100).as_deref(), Some(&b"last words"[..]));
        assert!(matches!(Pin::new(&mut io).poll_flush(&mut cx()), Poll::Ready(Err(_))));
    }
}
