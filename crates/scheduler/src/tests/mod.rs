//! One script per situation: a cluster, and the decisions that it leads to, word by word.

mod balance;
mod damage;
mod memory;
mod merges;
mod runs;
mod splits;
mod views;
mod world;
