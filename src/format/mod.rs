//! What is stored, byte by byte: pure encoding and decoding (docs/FORMAT.md). Every decoder takes its input as hostile.

mod commit_protocol;
pub(crate) mod config;
mod features;
pub(crate) mod index;
mod layout;
pub(crate) mod list;
pub(crate) mod pack;
mod page;
mod page_decode;
mod page_encode;
pub(crate) mod settings;
pub(crate) mod snapshot;
pub(crate) mod snapshot_source;
pub(crate) mod stamp;
pub(crate) mod tree;
mod wire;

pub use commit_protocol::{CommitProtocol, FoundCapabilities, InitialSettings};
pub use config::Config;
pub use index::{decode_index, encode_index};
pub(crate) use layout::{
    CHUNK_BYTES_MAX, CONFIG_NAME, EXPIRED_PREFIX, FRAME_RAW_BYTES, FRAME_RAW_BYTES_MAX, INDEX_PREFIX, KEYS_PREFIX,
    OBJECT_BYTES_MAX, PACK_BYTES_MAX, PACKS_PREFIX, PENDING_PREFIX, SETTINGS_NAME, SNAPSHOTS_PREFIX, is_snapshot_name,
    snapshot_id, snapshot_name,
};
pub use layout::{FORMAT_VERSION, PACK_BYTES, index_name, pack_name};
pub use list::{ListItem, ListPage, ListWriter, decode_list};
pub use pack::{decode_trailer, read_pack};
pub use settings::Settings;
pub use tree::{TreePage, decode_inner, decode_page, encode_entries, page_lengths, store_page, store_root};
