//! Families of attributes: lists and objects whose every leaf is an attribute of its own, as in
//! `llm.input_messages.0.message.content`.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

/// Steps of a key that are split; the remaining ones stay one name.
const MAX_STEPS: usize = 16;

/// The items of a family in the order of their numbers, which may have gaps. `None` if there are none.
pub(super) fn items(attributes: &Map<String, Json>, family: &str) -> Option<Vec<Json>> {
    let mut root = Node::default();
    for (key, value) in attributes {
        let Some(path) = key.strip_prefix(family) else { continue };
        if path.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) {
            root.put(path.splitn(MAX_STEPS, '.'), value);
        }
    }
    match root.value() {
        Json::Array(items) if !items.is_empty() => Some(items),
        _ => None,
    }
}

#[derive(Default)]
struct Node<'j> {
    leaf: Option<&'j Json>,
    numbered: BTreeMap<u32, Node<'j>>,
    named: Vec<(&'j str, Node<'j>)>,
}

impl<'j> Node<'j> {
    fn put(&mut self, mut steps: impl Iterator<Item = &'j str>, value: &'j Json) {
        let Some(step) = steps.next() else {
            self.leaf = Some(value);
            return;
        };
        let child = match step.parse() {
            Ok(number) => self.numbered.entry(number).or_default(),
            Err(_) => {
                let known = self.named.iter().position(|(name, _)| *name == step);
                let index = known.unwrap_or_else(|| {
                    self.named.push((step, Node::default()));
                    self.named.len() - 1
                });
                &mut self.named[index].1
            }
        };
        child.put(steps, value);
    }

    fn value(self) -> Json {
        if self.numbered.is_empty() && self.named.is_empty() {
            return self.leaf.cloned().unwrap_or(Json::Null);
        }
        if !self.numbered.is_empty() {
            return Json::Array(self.numbered.into_values().map(Node::value).collect());
        }
        let members = self.named.into_iter().map(|(name, node)| (name.to_owned(), node.value()));
        Json::Object(members.collect())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn holes_close_and_numbers_are_in_order() {
        let attributes = json!({
            "a.10.x": 3, "a.2.x": 2, "a.1.x": 1, "a.1.y.0.z": "deep", "a.name": "not a member", "b.0": 0
        });
        let items = items(attributes.as_object().unwrap(), "a.");
        assert_eq!(
            items,
            Some(vec![json!({"x": 1, "y": [{"z": "deep"}]}), json!({"x": 2}), json!({"x": 3})])
        );
    }

    #[test]
    fn a_family_that_is_not_there_is_none() {
        assert_eq!(items(&Map::new(), "a."), None);
    }
}
