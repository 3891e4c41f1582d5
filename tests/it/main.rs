//! One test binary: a module per room or behaviour.

mod disk;
mod segments;
