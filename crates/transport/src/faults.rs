//! Switches that lose a frame on purpose, and overlook that, so that tests can see what protects
//! from it.

/// Whether the frame with this number in its stream is to be lost. `ISOTHERM_FAULT_DROP_FRAME=N`
/// loses the N-th frame of one in a hundred streams.
#[cfg(feature = "faults")]
pub(crate) fn drops(number: u64) -> bool {
    use std::sync::OnceLock;
    static DROP: OnceLock<Option<u64>> = OnceLock::new();
    let parse = || std::env::var("ISOTHERM_FAULT_DROP_FRAME").ok()?.parse().ok();
    *DROP.get_or_init(parse) == Some(number) && fastrand::u32(0..100) == 0
}

/// What the test at hand wants.
#[cfg(all(test, not(feature = "faults")))]
pub(crate) fn drops(number: u64) -> bool {
    testing::DROPPED.get() == Some(number)
}

/// Never in a build without switches.
#[cfg(not(any(test, feature = "faults")))]
pub(crate) const fn drops(_number: u64) -> bool {
    false
}

/// Whether a gap in a stream is overlooked.
#[cfg(test)]
pub(crate) fn overlooks_gaps() -> bool {
    testing::OVERLOOKS_GAPS.get()
}

/// Never outside of tests.
#[cfg(not(test))]
pub(crate) const fn overlooks_gaps() -> bool {
    false
}

/// Switches of one test: each has its own thread.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::Cell;

    thread_local! {
        /// The number of the frame that each stream loses.
        pub static DROPPED: Cell<Option<u64>> = const { Cell::new(None) };
        /// Whether nobody minds.
        pub static OVERLOOKS_GAPS: Cell<bool> = const { Cell::new(false) };
    }
}
