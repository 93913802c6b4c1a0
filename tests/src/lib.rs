//! The roof: end-to-end tests, fuzz targets and benchmarks, their scripts beside them. Nobody depends on it. What two of its programs share is here:
//! the targets that a fuzzer and an ordinary test run, what a process writes that is killed and judged by another.

pub mod fuzz;
pub mod light;
pub mod written;
