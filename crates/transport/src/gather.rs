//! What waits in a queue as messages of bounded size.

use crate::budget::BytesHeld;
use crate::queue::QueueReceiver;
use futures::{Stream, stream};
use std::collections::VecDeque;

/// Items in one message at most.
const ITEMS_MAX: usize = 256;
/// Bytes after which a message is full; one item alone may have more. Without it a burst of items
/// that are each allowed makes a message that is not, and the connection breaks.
const BYTES_MAX: usize = 512 << 10;

/// Everything that waits in `queue` becomes one message, or several if it is much. Ends when the
/// queue is closed and empty.
pub fn gather<T>(queue: QueueReceiver<T>) -> impl Stream<Item = Vec<T>> {
    stream::unfold((queue, VecDeque::new()), move |(mut queue, mut waiting)| async move {
        if waiting.is_empty() {
            let mut taken = Vec::new();
            queue.recv_many(&mut taken, ITEMS_MAX).await;
            waiting = VecDeque::from(taken);
        }
        let message = fill(&mut waiting);
        (!message.is_empty()).then_some((message, (queue, waiting)))
    })
}

/// The first items, as many as fit one message; at least one if any waits.
fn fill<T>(waiting: &mut VecDeque<(T, BytesHeld)>) -> Vec<T> {
    let mut bytes = 0;
    let mut message = Vec::new();
    while let Some((item, held)) =
        waiting.pop_front_if(|(_, held)| bytes == 0 || bytes + held.bytes() <= BYTES_MAX)
    {
        bytes += held.bytes();
        message.push(item);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::ByteBudget;

    /// How many items each message has, of items of so many bytes.
    fn messages(items: &[usize]) -> Vec<usize> {
        let budget = ByteBudget::new(usize::MAX);
        let mut waiting: VecDeque<_> = items.iter().map(|n| (*n, budget.take(*n))).collect();
        let message = || Some(fill(&mut waiting)).filter(|message| !message.is_empty());
        std::iter::from_fn(message).map(|message| message.len()).collect()
    }

    #[test]
    fn a_message_is_full_at_its_bytes_and_one_item_alone_may_have_more() {
        let half = BYTES_MAX / 2;
        assert_eq!(messages(&[half, half]), [2], "as many bytes as it may have");
        assert_eq!(messages(&[half, half + 1]), [1, 1]);
        assert_eq!(messages(&[BYTES_MAX + 1, 1]), [1, 1]);
    }
}
