//! What waits in a queue as messages of bounded size.

use futures::{Stream, stream};
use std::collections::VecDeque;
use tokio::sync::mpsc;

/// Items in one message at most.
const ITEMS_MAX: usize = 256;
/// Payload bytes after which a message is full; one item alone may have more. Without it a burst
/// of items that are each allowed makes a message that is not, and the connection breaks.
const BYTES_MAX: usize = 512 << 10;

/// Everything that waits in `queue` becomes one message, or several if it is much. Ends when the
/// queue is closed and empty.
pub fn gather<T>(
    queue: mpsc::Receiver<T>,
    bytes_of: fn(&T) -> usize,
) -> impl Stream<Item = Vec<T>> {
    stream::unfold((queue, VecDeque::new()), move |(mut queue, mut waiting)| async move {
        if waiting.is_empty() {
            let mut taken = Vec::new();
            queue.recv_many(&mut taken, ITEMS_MAX).await;
            waiting = VecDeque::from(taken);
        }
        let message = fill(&mut waiting, bytes_of);
        (!message.is_empty()).then_some((message, (queue, waiting)))
    })
}

/// The first items, as many as fit one message; at least one if any waits.
fn fill<T>(waiting: &mut VecDeque<T>, bytes_of: fn(&T) -> usize) -> Vec<T> {
    let mut bytes = 0;
    let mut message = Vec::new();
    while let Some(item) =
        waiting.pop_front_if(|item| bytes == 0 || bytes + bytes_of(item) <= BYTES_MAX)
    {
        bytes += bytes_of(&item);
        message.push(item);
    }
    message
}
