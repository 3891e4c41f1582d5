//! Forward calls of a storage to another one: for wrappers, which change only some of them.

/// Implements methods of [`Storage`](crate::storage::Storage) by calling the same methods of another storage:
/// `forward_storage!(self => self.inner; describe, put, get)`.
#[macro_export]
macro_rules! forward_storage {
    ($self:ident => $to:expr; $($method:ident),* $(,)?) => {
        $($crate::forward_storage!(@$method $self $to);)*
    };
    (@describe $self:ident $to:expr) => {
        fn describe(&$self) -> String {
            $to.describe()
        }
    };
    (@identity $self:ident $to:expr) => {
        fn identity(&$self) -> String {
            $to.identity()
        }
    };
    (@local_path $self:ident $to:expr) => {
        fn local_path(&$self) -> Option<&::std::path::Path> {
            $to.local_path()
        }
    };
    (@capabilities $self:ident $to:expr) => {
        fn capabilities(&$self) -> $crate::storage::Capabilities {
            $to.capabilities()
        }
    };
    (@profile $self:ident $to:expr) => {
        fn profile(&$self) -> $crate::storage::StorageProfile {
            $to.profile()
        }
    };
    (@put $self:ident $to:expr) => {
        fn put(&$self, name: &str, body: $crate::storage::ObjectBody) -> $crate::error::Result<()> {
            $to.put(name, body)
        }
    };
    (@put_new $self:ident $to:expr) => {
        fn put_new(
            &$self,
            name: &str,
            body: $crate::storage::ObjectBody,
        ) -> $crate::error::Result<$crate::storage::ObjectVersion> {
            $to.put_new(name, body)
        }
    };
    (@compare_and_swap $self:ident $to:expr) => {
        fn compare_and_swap(
            &$self,
            name: &str,
            expected: &$crate::storage::ObjectVersion,
            body: $crate::storage::ObjectBody,
        ) -> $crate::error::Result<$crate::storage::ObjectVersion> {
            $to.compare_and_swap(name, expected, body)
        }
    };
    (@rename $self:ident $to:expr) => {
        fn rename(&$self, from: &str, to: &str) -> $crate::error::Result<()> {
            $to.rename(from, to)
        }
    };
    (@get $self:ident $to:expr) => {
        fn get(
            &$self,
            name: &str,
            bytes_max: u64,
        ) -> $crate::error::Result<(Vec<u8>, $crate::storage::ObjectVersion)> {
            $to.get(name, bytes_max)
        }
    };
    (@get_uncached $self:ident $to:expr) => {
        fn get_uncached(
            &$self,
            name: &str,
            bytes_max: u64,
        ) -> $crate::error::Result<(Vec<u8>, $crate::storage::ObjectVersion)> {
            $to.get_uncached(name, bytes_max)
        }
    };
    (@get_range $self:ident $to:expr) => {
        fn get_range(&$self, name: &str, offset: u64, length: u64) -> $crate::error::Result<Vec<u8>> {
            $to.get_range(name, offset, length)
        }
    };
    (@list $self:ident $to:expr) => {
        fn list(&$self, prefix: &str) -> $crate::error::Result<Vec<$crate::storage::ListedObject>> {
            $to.list(prefix)
        }
    };
    (@list_between $self:ident $to:expr) => {
        fn list_between(
            &$self,
            prefix: &str,
            after: &str,
            until: Option<&str>,
        ) -> $crate::error::Result<Vec<$crate::storage::ListedObject>> {
            $to.list_between(prefix, after, until)
        }
    };
    (@remove $self:ident $to:expr) => {
        fn remove(&$self, name: &str) -> $crate::error::Result<()> {
            $to.remove(name)
        }
    };
    (@stat $self:ident $to:expr) => {
        fn stat(&$self, name: &str) -> $crate::error::Result<$crate::storage::ObjectStat> {
            $to.stat(name)
        }
    };
}
