//! The timestamp oracle.
//!
//! ```text
//!  request ─┐
//!  request ─┼→ queue ─→ collector ─→ one quorum round ─→ timestamps for exactly these requests
//!  request ─┘             (two rounds in flight at most)
//!
//!  windows:  … | term 3: low ... high | term 4: low .. next ... target ...... high |
//!                                                    issued ↑          ↑ pace    ↑ 3 s ahead
//! ```
//!
//! Why timestamps are strictly increasing, across leaders too:
//! * A leader issues only from what entries of its own term allocated ([`Window`]), and each term's
//!   window lies above all earlier ones. So nothing is issued twice.
//! * Every answer is covered by a quorum round that began after its request had arrived, and
//!   confirmed the term of the window. So when the request arrived no later term had committed
//!   anything, and whatever was answered before is from this window, below `next`, or from an
//!   earlier one. However long the leader pauses after the round, the answer is above what came
//!   before the request, which is all that is promised.
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
