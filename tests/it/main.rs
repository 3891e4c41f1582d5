//! One test binary: a module per room or behaviour.

mod chaos;
mod commit;
mod compare;
mod crash;
mod damage;
mod disk;
mod fixture;
mod folder;
mod golden;
mod reader;
mod roundtrip;
mod segments;
