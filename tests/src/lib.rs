//! Nothing is exported here: the package's tests stand in `tests/tests`, its scripts beside them. It is the roof: nobody depends on it.
