//! The timestamp oracle.
//!
//! ```text
//!  request ─┐
//!  request ─┼→ queue ─→ collector ─→ one quorum round ─→ timestamps for exactly these requests
//!  request ─┘             (two rounds in flight at most)
//!
//!  windows:  … | lead 3: low ... high | lead 4: low .. next ... target ...... high |
//!                                                    issued ↑          ↑ pace    ↑ 3 s ahead
//! ```
//!
//! Why timestamps are strictly increasing, across leaders too:
//! * A leader issues only from what entries of its own leadership allocated ([`Window`]), and each
//!   leadership's window lies above all earlier ones. So nothing is issued twice. A leadership is a
//!   term *and* a member: one term may have several leaders, one after the other.
//! * Every answer is covered by a quorum round that began after its request had arrived, and
//!   confirmed the leadership that the window belongs to. So when the request arrived no later
//!   leader had committed anything, and whatever was answered before is from this window, below
//!   `next`, or from an earlier one. However long the leader pauses after the round, the answer is
//!   above what came before the request, which is all that is promised.
//!
//! The physical part is for people and retention: see [`Pace`].
//!
//! | task | what | ends |
//! |---|---|---|
//! | collector | gathers requests, starts rounds | the member's stop |
//! | round | confirms, issues, answers | by itself |
//! | extender | keeps the window 3 s ahead; follows the windows of other leaders | the member's stop |
//!
//! [`Window`]: crate::machine::Window
//! [`Pace`]: pace::Pace

mod extender;
mod faults;
mod handle;
mod issuer;
mod pace;
mod rounds;
#[cfg(test)]
mod tests;

pub use handle::{COUNT_MAX, Oracle, Refusal};
