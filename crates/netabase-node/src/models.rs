//! The typed models of the demonstration: the packages of a Debian system.

use netabase::netabase_definition_module;

#[netabase_definition_module(PackageDefinition, PackageKeys, name = "packages")]
mod definition {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    /// An entry of the package index.
    #[derive(NetabaseModel, Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    #[netabase(PackageDefinition)]
    pub(crate) struct Package {
        /// Such as `coreutils`.
        #[primary_key]
        pub(crate) name: String,
        /// Such as `utils`.
        #[secondary_key]
        pub(crate) section: String,
        /// Such as `optional`.
        #[secondary_key]
        pub(crate) priority: String,
        /// Such as `9.1-1`.
        pub(crate) version: String,
        /// Such as `amd64`.
        pub(crate) architecture: String,
        /// In KiB, if known.
        pub(crate) installed_size: Option<u64>,
        /// Such as `libc6 (>= 2.34)`; alternatives are one entry.
        pub(crate) depends: Vec<String>,
        /// The synopsis in the first line, followed by the text.
        pub(crate) description: String,
    }
}

pub(crate) use definition::{Package, PackageDefinition, PackagePrimaryKey, PackageSectionSecondaryKey};

impl Package {
    /// Returns the primary key of the package.
    pub(crate) fn key(&self) -> PackagePrimaryKey {
        PackagePrimaryKey(self.name.clone())
    }
}
