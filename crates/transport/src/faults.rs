//! A switch that loses a frame on purpose, so that tests can see what protects from it.

/// Whether the frame with this number in its stream is to be lost. `ISOTHERM_FAULT_DROP_FRAME=N`
/// loses the N-th frame of one in a hundred streams.
#[cfg(feature = "faults")]
pub(crate) fn drops(number: u64) -> bool {
    use std::sync::OnceLock;
    static DROP: OnceLock<Option<u64>> = OnceLock::new();
    let parse = || std::env::var("ISOTHERM_FAULT_DROP_FRAME").ok()?.parse().ok();
    *DROP.get_or_init(parse) == Some(number) && fastrand::u32(0..100) == 0
}

/// Never in a build without switches.
#[cfg(not(feature = "faults"))]
pub(crate) const fn drops(_number: u64) -> bool {
    false
}
