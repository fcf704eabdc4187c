//! Idle groups sleep, and wake when they must.
