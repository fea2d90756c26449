use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
mod chat {
    pub struct Message {
        pub id: String,
    }
}

fn main() {
    fn show(definition: &chat::ChatDefinition, _: &chat::ChatKeys) -> String {
        format!("{definition:?}")
    }
    let _ = (show, chat::Message { id: String::new() });
}
