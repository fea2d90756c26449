//! Keys of models that are not described, and keys with the names of parameters.

use netabase::netabase_definition_module;
use netabase_client::Answer;
use serde_json::{Value, json};

use crate::common::{Served, config, node_of};

#[netabase_definition_module(MailDefinition, MailKeys)]
mod mail {
    use netabase::NetabaseModel;
    use serde::{Deserialize, Serialize};

    /// A type that the program does not describe.
    #[derive(Clone, Serialize, Deserialize)]
    pub struct Opaque(pub String);

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(MailDefinition)]
    pub struct Letter {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub from: String,
        #[secondary_key]
        pub limit: String,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(MailDefinition)]
    pub struct Parcel {
        #[primary_key]
        pub id: u64,
        #[secondary_key]
        pub room: String,
        pub content: Opaque,
    }

    #[derive(NetabaseModel, Clone, Serialize, Deserialize)]
    #[netabase(MailDefinition)]
    pub struct Card {
        #[primary_key]
        pub name: String,
        pub content: Opaque,
    }
}
use mail::*;

async fn served() -> Served<MailDefinition> {
    let served = Served::with(node_of(), config()).await;
    for id in 0..3 {
        let letter = Letter { id, from: format!("ada {id}"), limit: "none".into() };
        served.netabase.put_record(letter).await.unwrap();
        let parcel =
            Parcel { id: 0x6162_6364_6566_6700 + id, room: "general".into(), content: Opaque("?".into()) };
        served.netabase.put_record(parcel).await.unwrap();
    }
    served
}

fn ids(page: &Answer) -> Vec<Value> {
    page.json["records"].as_array().unwrap().iter().map(|record| record["value"]["id"].clone()).collect()
}

#[tokio::test]
async fn a_model_is_described_whatever_the_others_are() {
    let served = served().await;
    let read = served.client.get("/v1/models/Letter/records/1").await.unwrap();
    assert_eq!((&read.json["key"], &read.json["value"]["from"]), (&json!(1), &json!("ada 1")));
    let schema = served.client.get("/v1/schema").await.unwrap().json;
    let is_described = |model: &Value| (model["name"].clone(), model["fields"].is_array());
    let described: Vec<_> = schema["models"].as_array().unwrap().iter().map(is_described).collect();
    assert_eq!(described, [(json!("Letter"), true), (json!("Parcel"), false), (json!("Card"), false)]);
}

#[tokio::test]
async fn what_is_not_described_has_keys_of_bytes_that_are_read_as_they_are_written() {
    let served = served().await;
    let page = served.client.get("/v1/models/Parcel/records").await.unwrap();
    for record in page.json["records"].as_array().unwrap() {
        let key = record["key"].as_str().unwrap();
        assert!(key.starts_with("0x6162636465666"), "{key}");
        let path = format!("/v1/models/Parcel/records/{key}");
        let read = served.client.get(&path).await.unwrap();
        assert_eq!(read.json["value"], record["value"]);
        assert_eq!(served.client.put(&path, &record["value"], None).await.unwrap().status, 200);
    }
    let room = served.client.get("/v1/models/Parcel/records?room=general").await.unwrap();
    assert_eq!(ids(&room), ids(&page));
    let from = served.client.get("/v1/models/Parcel/records?from=0x6162636465666701").await.unwrap();
    assert_eq!(ids(&from).len(), 2);
    for key in ["abcdefg", "0x0", "0xzz"] {
        let refused = served.client.get(&format!("/v1/models/Parcel/records/{key}")).await.unwrap_err();
        assert_eq!(refused.problem(), Some("bad-parameter"), "{key}");
    }
    let card = json!({ "name": "0xff", "content": "text, not bytes" });
    served.client.put("/v1/models/Card/records/0xff", &card, None).await.unwrap();
    let read = served.client.get("/v1/models/Card/records/0xff").await.unwrap();
    assert_eq!((&read.json["key"], &read.json["value"]), (&json!("0xff"), &card));
}

#[tokio::test]
async fn a_secondary_key_that_is_called_like_a_parameter_is_asked_for_by_index_and_key() {
    let served = served().await;
    let letters = "/v1/models/Letter/records";
    let page = served.client.get(&format!("{letters}?index=from&key=ada%201")).await.unwrap();
    assert_eq!(ids(&page), [json!(1)]);
    let page = served.client.get(&format!("{letters}?index=limit&key=none&limit=2")).await.unwrap();
    assert_eq!(ids(&page), [json!(0), json!(1)]);
    let refused = served.client.get(&format!("{letters}?from=ada")).await.unwrap_err();
    assert!(refused.to_string().contains("index=from&key="), "{refused}");
}
