//! A cluster that exists only as figures, to see what the scheduler does with it.
//!
//! Discrete events, one seed, no clock of the machine: the same seed gives the same run. What is
//! modelled is what makes schedulers go wrong:
//! * orders take effect late: splits after 50 to 200 ms, hand-overs after 100 to 300 ms, moves after
//!   what their bytes take;
//! * loads are averages over one and ten seconds, start from nought at a new leader, and are
//!   reported every half second, by each node at its own times;
//! * a node that is asked for more than it has serves a share, so that its ranges look cooler than
//!   they are, and get hotter when they are moved;
//! * keys are sampled from the demand;
//! * nodes fail, restart and join.
//!
//! [`Demand`] says what is asked of which keys, [`Simulation`] runs, [`Metrics`] counts.

mod demand;
mod effects;
mod metrics;
mod plan;
mod simulation;
mod world;

pub use demand::{Demand, Spot};
pub use metrics::Metrics;
pub use simulation::Simulation;
pub use world::{Setup, key};
