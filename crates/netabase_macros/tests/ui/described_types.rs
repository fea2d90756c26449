//! Types that cannot be described.

use netabase_store::FieldType;

#[derive(FieldType)]
struct Generic<T> {
    value: T,
}

#[derive(FieldType)]
struct Nothing;

#[derive(FieldType)]
enum Never {}

#[derive(FieldType, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "UPPERCASE", default)]
struct Shouted {
    text: String,
    #[serde(skip)]
    other: u8,
}

#[derive(FieldType)]
union Either {
    one: u8,
    other: i8,
}

#[derive(FieldType, serde::Serialize, serde::Deserialize)]
enum Ascending {
    Least = -2,
    Less,
    More = 7,
}

#[derive(FieldType, serde::Serialize, serde::Deserialize)]
enum Descending {
    Most = 10,
    Least = 1,
}

struct Plain;

fn described<T: FieldType>() {}

fn main() {
    described::<Vec<Plain>>();
}
