//! The disk that fails on command stands with everything else that is simulated.

pub use tidelog_sim::disk::SimDisk;
