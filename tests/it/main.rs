//! One test binary: a module per room or behaviour.

mod browse;
mod chaos;
mod command;
mod commit;
mod compare;
mod crash;
mod damage;
mod disk;
mod far;
mod fixture;
mod folder;
mod golden;
mod https;
mod killed;
mod large;
mod mounted;
mod person;
mod reader;
mod rooms;
mod roundtrip;
mod segments;
mod skip;
mod storage;
mod terminal;
