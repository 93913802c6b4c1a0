//! The roof: end-to-end tests, fuzz targets and benchmarks, their scripts beside them. Nobody depends on it. Only [`fuzz`] is a library,
//! because both the fuzzer and an ordinary test run its targets.

pub mod fuzz;
