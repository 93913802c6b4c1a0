//! Everything that a field of sensors needs and a desk does not have: the air between stations, NOR flash, disks
//! that fail and virtual sensors, all seeded. For tests and the demo; nothing that ships depends on it.

pub mod air;
pub mod board;
pub mod cluster;
pub mod disk;
pub mod flash;
pub mod ports;
pub mod rcp;
pub mod sensor;
