use netabase_store::netabase_definition_module;

#[netabase_definition_module(ChatDefinition, ChatKeys)]
pub struct Message {
    pub id: String,
}

fn main() {
    let _ = Message { id: String::new() };
}
