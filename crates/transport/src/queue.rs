//! A queue that is bounded in bytes.

use crate::budget::{ByteBudget, BytesHeld, Waiter};
use tokio::sync::mpsc;

/// What an item costs beside its bytes, so that very many small ones are bounded too.
const ITEM_BYTES: usize = 128;

/// Why an item was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueError<T> {
    /// Too much waits; the item comes back.
    Full(T),
    /// Nobody takes anything out of it any more.
    Closed,
}

/// Nobody takes anything out of a queue any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueClosed;

/// A queue in which as many bytes may wait as `budget` has.
pub fn queue<T>(budget: ByteBudget) -> (QueueSender<T>, QueueReceiver<T>) {
    // Bounded by the budget, from which every item takes.
    let (items, taken) = mpsc::unbounded_channel();
    (QueueSender { items, budget }, QueueReceiver { items: taken })
}

/// The side that puts items in.
#[derive(Debug)]
pub struct QueueSender<T> {
    items: mpsc::UnboundedSender<(T, BytesHeld)>,
    budget: ByteBudget,
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), budget: self.budget.clone() }
    }
}

impl<T> QueueSender<T> {
    /// Puts an item of `bytes` in if there is room for it.
    pub fn try_send(&self, item: T, bytes: usize) -> Result<(), QueueError<T>> {
        let Some(held) = self.budget.try_take(bytes + ITEM_BYTES) else {
            return Err(QueueError::Full(item));
        };
        self.items.send((item, held)).map_err(|_| QueueError::Closed)
    }

    /// Puts an item in after [`Waiter::poll_room`] said that there is room, or one that cannot wait.
    pub fn push(&self, item: T, bytes: usize) -> Result<(), QueueClosed> {
        let held = self.budget.take(bytes + ITEM_BYTES);
        self.items.send((item, held)).map_err(|_| QueueClosed)
    }

    /// Puts an item in as soon as there is room.
    pub async fn send(&self, item: T, bytes: usize) -> Result<(), QueueClosed> {
        let waiter = self.waiter();
        tokio::select! {
            () = waiter.room() => self.push(item, bytes),
            () = self.closed() => Err(QueueClosed),
        }
    }

    /// Somebody who waits for room.
    pub fn waiter(&self) -> Waiter {
        self.budget.waiter()
    }

    /// Whether nobody takes anything out of it any more.
    pub fn is_closed(&self) -> bool {
        self.items.is_closed()
    }

    /// Waits until nobody takes anything out of it any more.
    pub async fn closed(&self) {
        self.items.closed().await;
    }
}

/// The side that takes items out. Dropping it gives back what waits.
#[derive(Debug)]
pub struct QueueReceiver<T> {
    items: mpsc::UnboundedReceiver<(T, BytesHeld)>,
}

impl<T> QueueReceiver<T> {
    /// Takes what waits, up to `items_max`; waits for the first. None is added when the queue is
    /// closed and empty.
    pub(crate) async fn recv_many(&mut self, into: &mut Vec<(T, BytesHeld)>, items_max: usize) {
        self.items.recv_many(into, items_max).await;
    }
}
