//! Whatever is typed or answered, the readers of small languages neither panic nor lose anything.

use proptest::prelude::*;
use serde_json::Value;

use super::attached::DetachKeys;
use super::{json, option_values, quantity, table, template};

/// JSON documents of some depth.
fn documents() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..6)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in ".*") {
        // Each gives a value or an error; a panic fails the test.
        quantity::bytes(&text).ok();
        quantity::nano_cpus(&text).ok();
        quantity::point_in_time(&text, jiff::Timestamp::UNIX_EPOCH).ok();
        text.parse::<DetachKeys>().ok();
        option_values::image_source(&text).ok();
        option_values::mount(&text).ok();
        option_values::ulimit(&text).ok();
        option_values::device(&text);
        option_values::binds(&[text]).ok();
    }

    #[test]
    fn any_template_is_parsed_or_refused(text in r"(\{\{|\}\}|\.|json |index |[a-zA-Z]|\x22| |\\t){0,12}", document in documents()) {
        if let Ok(template) = template::Template::parse(&text) {
            template.render(&document).ok();
        }
    }

    #[test]
    fn text_without_braces_is_its_own_template(text in r"[^{\\]*") {
        let template = template::Template::parse(&text).expect("no action in it");
        prop_assert_eq!(template.render(&Value::Null).expect("no field in it"), text);
    }

    #[test]
    fn indented_json_is_the_same_document(document in documents()) {
        let indented = json::indent(&document.to_string());
        let again: Value = serde_json::from_str(&indented).expect("still JSON");
        prop_assert_eq!(again, document);
    }

    #[test]
    fn every_cell_of_a_column_begins_at_one_place(rows in prop::collection::vec(prop::collection::vec("[a-zé]{1,15}", 3), 1..5)) {
        let lines: Vec<String> = rows.iter().map(|cells| cells.join("\t")).collect();
        let table = table::align(&lines);
        let place = |line: &str, row: &[String]| line.chars().count() - row[2].chars().count();
        let places: Vec<usize> = table.lines().zip(&rows).map(|(line, row)| place(line, row)).collect();
        prop_assert!(places.iter().all(|one| *one == places[0]), "{table}");
    }
}
