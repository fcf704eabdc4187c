//! Answers that are streamed to a client, bounded in bytes and in time.
//!
//! A client that does not read its stream holds what was made for it: messages, a snapshot, a place
//! among the aggregates that are read at a time. So a stream queues few bytes, its sender waits
//! when they are full, and when nothing is taken for some time it ends with an error.

use super::refusal::refused;
use futures::Stream;
use isotherm_proto::v1::Reason;
use isotherm_transport::BytesHeld;
use parking_lot::Mutex;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{Instant, timeout, timeout_at};
use tonic::Status;

/// How long a message waits for memory that all streams share before its stream is refused.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(5);

/// A message of figures.
const SMALL_BYTES: usize = 1 << 10;

/// How much of a stream waits for its client, and for how long.
#[derive(Clone)]
pub struct StreamLimits {
    /// Messages that wait at most.
    pub messages: usize,
    /// Bytes that wait at most; a larger message waits alone.
    pub bytes: usize,
    /// A client that takes nothing for so long is given up.
    pub idle: Duration,
    /// Bytes that the messages of several streams share, one permit each.
    pub memory: Option<Arc<Semaphore>>,
}

struct Item<T> {
    message: Result<T, Status>,
    _bytes: OwnedSemaphorePermit,
    _memory: Option<OwnedSemaphorePermit>,
    /// Given back when the message goes to the wire.
    _held: Option<BytesHeld>,
}

struct Queue<T> {
    items: Mutex<mpsc::Receiver<Item<T>>>,
    /// When something was taken last.
    taken: Mutex<Instant>,
    /// Why the stream ends early, after everything that waits.
    end: Mutex<Option<Status>>,
}

impl<T> Queue<T> {
    /// Takes nothing more, and frees what waits.
    fn close(&self) {
        let mut items = self.items.lock();
        items.close();
        while items.try_recv().is_ok() {}
    }
}

/// The end that answers are put into.
pub struct AnswerSender<T> {
    items: mpsc::Sender<Item<T>>,
    queue: Arc<Queue<T>>,
    bytes: Arc<Semaphore>,
    limits: StreamLimits,
}

/// The end that a client reads.
pub struct Answers<T>(Arc<Queue<T>>);

/// A stream of answers.
pub fn answers<T>(limits: StreamLimits) -> (AnswerSender<T>, Answers<T>) {
    let (items, taken) = mpsc::channel(limits.messages);
    let (items_of_queue, now) = (Mutex::new(taken), Mutex::new(Instant::now()));
    let queue = Arc::new(Queue { items: items_of_queue, taken: now, end: Mutex::new(None) });
    let bytes = Arc::new(Semaphore::new(limits.bytes));
    (AnswerSender { items, queue: queue.clone(), bytes, limits }, Answers(queue))
}

impl<T> AnswerSender<T> {
    /// Sends a message of so many bytes as soon as there is room; whether the client still reads.
    pub async fn send(&self, message: T, bytes: usize) -> bool {
        self.send_held(message, bytes, None).await
    }

    /// The same for one whose memory is accounted for until it is taken.
    pub async fn send_held(&self, message: T, bytes: usize, held: Option<BytesHeld>) -> bool {
        tokio::select! {
            is_sent = self.queue_up(message, bytes, held) => is_sent,
            () = self.items.closed() => false,
        }
    }

    async fn queue_up(&self, message: T, bytes: usize, held: Option<BytesHeld>) -> bool {
        let permits = |max: usize| u32::try_from(bytes.min(max)).unwrap_or(u32::MAX);
        let memory = match &self.limits.memory {
            None => None,
            Some(memory) => {
                let waited = memory.clone().acquire_many_owned(permits(self.limits.bytes));
                match timeout(MEMORY_TIMEOUT, waited).await {
                    Ok(permit) => permit.ok(),
                    Err(_) => {
                        let why = "too much waits to be read from this node: try again later";
                        self.end(refused(Reason::Busy, why));
                        return false;
                    }
                }
            }
        };
        let room = async {
            let bytes = self.bytes.clone().acquire_many_owned(permits(self.limits.bytes)).await;
            let place = self.items.reserve().await;
            Some((bytes.ok()?, place.ok()?))
        };
        match self.while_read(room).await {
            Some(Some((bytes, place))) => {
                place.send(Item {
                    message: Ok(message),
                    _bytes: bytes,
                    _memory: memory,
                    _held: held,
                });
                true
            }
            Some(None) => false,
            None => {
                let idle = self.limits.idle.as_secs_f64();
                self.end(refused(Reason::NotRead, format!(
                    "nothing was read from this stream for {idle} s, so it was ended: ask again for \
                     what is missing, and read it without such pauses"
                )));
                false
            }
        }
    }

    /// Waits for as long as the client takes something now and then; `None`: it does not.
    async fn while_read<R>(&self, waited: impl Future<Output = R>) -> Option<R> {
        let begun = Instant::now();
        let mut waited = std::pin::pin!(waited);
        loop {
            let until = begun.max(*self.queue.taken.lock()) + self.limits.idle;
            if let Ok(done) = timeout_at(until, &mut waited).await {
                return Some(done);
            }
            if begun.max(*self.queue.taken.lock()) + self.limits.idle <= until {
                return None;
            }
        }
    }

    /// Sends a small message if there is room for it at once.
    pub fn try_send(&self, message: T) {
        if let Ok(bytes) = self.bytes.clone().try_acquire_many_owned(0) {
            let item = Item { message: Ok(message), _bytes: bytes, _memory: None, _held: None };
            let _ = self.items.try_send(item);
        }
    }

    /// Ends the stream with an error after what was sent, if the client reads; what waits for one
    /// that does not read is freed.
    pub async fn fail(&self, error: Status) {
        let room = self.bytes.clone().try_acquire_many_owned(0).ok();
        let item = room.map(|bytes| Item {
            message: Err(error),
            _bytes: bytes,
            _memory: None,
            _held: None,
        });
        if let Some(item) = item
            && self.while_read(self.items.send(item)).await.is_none()
        {
            self.end(refused(Reason::NotRead, "this stream was not read"));
        }
    }

    fn end(&self, error: Status) {
        metrics::counter!("isotherm_streams_given_up_total").increment(1);
        *self.queue.end.lock() = Some(error);
        self.queue.close();
    }

    /// Whether a small message is sent without waiting.
    pub fn has_room(&self) -> bool {
        self.items.capacity() > 0 && self.bytes.available_permits() >= SMALL_BYTES
    }

    /// Until the client is gone, or was given up.
    pub async fn closed(&self) {
        self.items.closed().await;
    }
}

impl<T> Stream for Answers<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.0.items.lock().poll_recv(cx);
        polled.map(|item| match item {
            Some(item) => {
                *self.0.taken.lock() = Instant::now();
                Some(item.message)
            }
            None => self.0.end.lock().take().map(Err),
        })
    }
}

impl<T> Drop for Answers<T> {
    fn drop(&mut self) {
        self.0.close();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use futures::StreamExt;
    use tonic::Code;

    const IDLE: Duration = Duration::from_millis(200);

    fn limits() -> StreamLimits {
        StreamLimits { messages: 4, bytes: 100, idle: IDLE, memory: None }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_in_bytes_and_a_large_message_waits_alone() {
        let (sender, mut answers) = answers(limits());
        assert!(sender.send("a", 60).await);
        let mut second = Box::pin(sender.send("b", 60));
        assert!(futures::poll!(&mut second).is_pending());
        assert_eq!(answers.next().await.unwrap().unwrap(), "a");
        assert!(second.await);
        assert_eq!(answers.next().await.unwrap().unwrap(), "b");
        assert!(sender.send("large", 1_000_000).await);
        assert!(futures::poll!(Box::pin(sender.send("c", 1))).is_pending());
    }

    #[tokio::test]
    async fn a_stream_that_is_not_read_ends_with_an_error_and_holds_nothing() {
        let memory = Arc::new(Semaphore::new(1_000));
        let (sender, mut answers) =
            answers(StreamLimits { memory: Some(memory.clone()), ..limits() });
        assert!(sender.send("a", 80).await);
        let begun = Instant::now();
        assert!(!sender.send("b", 80).await);
        assert!(begun.elapsed() >= IDLE && begun.elapsed() < IDLE * 10);
        assert_eq!(memory.available_permits(), 1_000, "nothing waits any more");
        drop(sender);
        // Not an end that looks like that of a whole answer.
        let error = answers.next().await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::Aborted);
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_reads_slowly_is_not_given_up() {
        let (sender, mut answers) = answers(limits());
        for _ in 0..4 {
            assert!(sender.send("small", 25).await);
        }
        // It needs the room of all four, which takes longer than the time for one.
        let sending = tokio::spawn(async move { sender.send("large", 100).await });
        for _ in 0..4 {
            tokio::time::sleep(IDLE * 2 / 3).await;
            assert_eq!(answers.next().await.unwrap().unwrap(), "small");
        }
        assert!(sending.await.unwrap());
        assert_eq!(answers.next().await.unwrap().unwrap(), "large");
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn a_client_that_goes_away_ends_its_stream_at_once() {
        let (sender, answers) = answers(limits());
        assert!(sender.send("a", 100).await);
        let sending = tokio::spawn(async move { sender.send("b", 100).await });
        drop(answers);
        assert!(!timeout(IDLE / 2, sending).await.unwrap().unwrap());
    }
}
