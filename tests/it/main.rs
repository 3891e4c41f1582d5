//! One test binary: a module per room or behaviour.

mod begin;
mod browse;
mod chaos;
mod checkpoint;
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
