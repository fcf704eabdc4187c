//! What the client decides by itself: where to ask, what to repeat under which identity, what to
//! report. The cluster is a scripted one, so that every answer, and every silence, can be given on
//! purpose; what real nodes answer is tested with real processes elsewhere.

#![allow(clippy::unwrap_used)]

mod aggregates;
mod batches;
mod clusters;
mod holds;
mod reads;
mod routing;
mod scans;
mod scripted;
mod splits;
mod writes;
