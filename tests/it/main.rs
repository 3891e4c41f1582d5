//! One test binary: a module per room or behaviour.

mod browse;
mod command;
mod disk;
mod folder;
mod golden;
mod reader;
mod rooms;
mod segments;
mod skip;
mod storage;
