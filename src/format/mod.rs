//! What is stored, byte by byte: pure encoding and decoding (docs/FORMAT.md). Every decoder takes its input as hostile.

mod commit_protocol;
pub mod config;
mod features;
pub mod index;
mod layout;
pub mod list;
pub mod pack;
mod page;
mod page_decode;
mod page_encode;
pub mod settings;
pub mod snapshot;
pub mod tree;
mod wire;

pub use commit_protocol::{CommitProtocol, FoundCapabilities, InitialSettings};
pub use config::Config;
pub use layout::{
    CHUNK_BYTES_MAX, CONFIG_NAME, EXPIRED_PREFIX, FORMAT_VERSION, FRAME_RAW_BYTES, FRAME_RAW_BYTES_MAX, INDEX_PREFIX,
    KEYS_PREFIX, OBJECT_BYTES_MAX, PACK_BYTES, PACK_BYTES_MAX, PACKS_PREFIX, PENDING_PREFIX, SETTINGS_NAME,
    SNAPSHOTS_PREFIX, index_name, is_snapshot_name, pack_name, snapshot_id, snapshot_name,
};
pub use settings::Settings;
