//! One test binary: a module per room or behaviour.

mod disk;
mod folder;
mod golden;
mod reader;
mod segments;
mod storage;
