//! Which fields and which values of enums occur in encoded messages, by the descriptors of `proto/`.

use std::collections::{BTreeMap, BTreeSet};

use drover_wire::proto::DESCRIPTORS;
use prost::Message;
use prost::bytes::Buf;
use prost::encoding::{WireType, decode_key, decode_varint};
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorSet};

/// Whose messages have to occur; what they hold of others is walked as well.
const FILES: &[&str] = &[
    "drover/v1/kv.proto",
    "drover/v1/internal.proto",
    "drover/v1/distribution.proto",
    "drover/v1/cluster.proto",
    "drover/v1/compat.proto",
    "drover/v1/txn.proto",
];

pub struct Seen {
    messages: BTreeMap<String, DescriptorProto>,
    enums: BTreeMap<String, EnumDescriptorProto>,
    /// Everything that has to occur.
    expected: BTreeSet<String>,
    seen: BTreeSet<String>,
}

impl Default for Seen {
    fn default() -> Self {
        let mut all = Self {
            messages: BTreeMap::new(),
            enums: BTreeMap::new(),
            expected: BTreeSet::new(),
            seen: BTreeSet::new(),
        };
        for file in FileDescriptorSet::decode(DESCRIPTORS).unwrap().file {
            let expected = FILES.contains(&file.name());
            let package = format!(".{}", file.package());
            for message in &file.message_type {
                all.add_message(&package, message, expected);
            }
            for values in &file.enum_type {
                all.add_enum(&package, values, expected);
            }
        }
        all
    }
}

impl Seen {
    fn add_message(&mut self, scope: &str, message: &DescriptorProto, expected: bool) {
        let name = format!("{scope}.{}", message.name());
        if expected {
            self.expected.extend(message.field.iter().map(|field| format!("{name}.{}", field.name())));
        }
        for inner in &message.nested_type {
            self.add_message(&name, inner, expected);
        }
        for values in &message.enum_type {
            self.add_enum(&name, values, expected);
        }
        self.messages.insert(name, message.clone());
    }

    fn add_enum(&mut self, scope: &str, values: &EnumDescriptorProto, expected: bool) {
        let name = format!("{scope}.{}", values.name());
        if expected {
            // Zero is "unspecified", and takes no bytes.
            let sent = values.value.iter().filter(|value| value.number() != 0);
            self.expected.extend(sent.map(|value| format!("{name}.{}", value.name())));
        }
        self.enums.insert(name, values.clone());
    }

    /// Takes note of what a message of `drover.v1` holds.
    pub fn walk(&mut self, message: &str, bytes: &[u8]) {
        self.walk_message(&format!(".drover.v1.{message}"), bytes);
    }

    fn walk_message(&mut self, name: &str, mut bytes: &[u8]) {
        let message = self.messages.get(name).unwrap_or_else(|| panic!("there is no message {name}")).clone();
        while bytes.has_remaining() {
            let (tag, wire_type) = decode_key(&mut bytes).unwrap();
            let field = message.field.iter().find(|field| field.number() == tag as i32);
            let field = field.unwrap_or_else(|| panic!("{name} has no field {tag}"));
            self.seen.insert(format!("{name}.{}", field.name()));
            match wire_type {
                WireType::Varint => {
                    let number = decode_varint(&mut bytes).unwrap();
                    if field.r#type() == Type::Enum {
                        let values = &self.enums[field.type_name()];
                        let value = values.value.iter().find(|value| value.number() as u64 == number);
                        let value = value.unwrap_or_else(|| panic!("{} has no value {number}", field.type_name()));
                        self.seen.insert(format!("{}.{}", field.type_name(), value.name()));
                    }
                }
                WireType::LengthDelimited => {
                    let length = decode_varint(&mut bytes).unwrap() as usize;
                    let (content, rest) = bytes.split_at(length);
                    bytes = rest;
                    if field.r#type() == Type::Message {
                        self.walk_message(field.type_name(), content);
                    }
                }
                WireType::SixtyFourBit => bytes.advance(8),
                WireType::ThirtyTwoBit => bytes.advance(4),
                other => panic!("{name}.{} is encoded as {other:?}, which no message uses", field.name()),
            }
        }
    }

    /// What has not occurred.
    pub fn missing(&self) -> Vec<&String> {
        self.expected.difference(&self.seen).collect()
    }
}
