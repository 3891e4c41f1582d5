//! One test binary: a module per room or behaviour.

mod compare;
mod crash;
mod disk;
mod fixture;
mod folder;
mod golden;
mod reader;
mod segments;
