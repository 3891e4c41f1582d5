//! One test binary: a module per room or behaviour.

mod browse;
mod disk;
mod segments;
