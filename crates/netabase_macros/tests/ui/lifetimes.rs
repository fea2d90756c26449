use netabase_store::netabase_definition_module;

#[netabase_definition_module(PresenceDefinition, PresenceKeys)]
mod presence {
    use netabase_store::NetabaseModel;
    use serde::{Deserialize, Serialize};

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(PresenceDefinition, lifetime = "30")]
    pub struct NoUnit {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(PresenceDefinition, lifetime = 30)]
    pub struct NoString {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(PresenceDefinition, lifetime = "0d")]
    pub struct Nothing {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(PresenceDefinition, lifetime = "-1d")]
    pub struct Negative {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(PresenceDefinition, lifetime = "99999999999999999d")]
    pub struct TooLong {
        #[primary_key]
        pub id: u64,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(PresenceDefinition, lifetime = "1d", lifetime = "2d")]
    pub struct Twice {
        #[primary_key]
        pub id: u64,
    }
}

fn main() {}
