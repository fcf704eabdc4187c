//! What a member is asked to do: one file per operation.

mod confirm_leadership;
mod initialize;
mod propose;
mod transfer_away;
