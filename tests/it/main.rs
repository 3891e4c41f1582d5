//! One test binary for everything that is tested through the library's doors.

mod segments;
