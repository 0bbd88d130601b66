//! Which rule of a call decides where several hold.
//!
//! libseccomp keeps the rules of a call as a tree of comparisons and walks it in a fixed order, whatever the order of the
//! profile: profiles with different answers to overlapping rules mean what that order makes of them. Here the same order is
//! the order of a list:
//!
//! - a rule whose conditions are the first ones of another rule comes before that: it decides whenever the other would;
//! - a condition on a later argument comes before one on an earlier;
//! - equality (and inequality) before "less", "less" before "greater";
//! - of two limits the tighter one, of two values the larger one;
//! - otherwise the profile's order stays.

use std::cmp::Ordering;

use crate::spec::oci::LinuxSeccompOperator as Operator;

use super::rules::{Condition, Rule};

/// Puts `rules`, which are for one call, in the order of their precedence.
pub(super) fn sort(rules: &mut [Rule]) {
    if rules.windows(2).all(|pair| pair[0].answer == pair[1].answer) {
        // Whichever holds first, the answer is the same.
        return;
    }
    for rule in rules.iter_mut() {
        rule.conditions.sort_by_key(|condition| condition.index);
    }
    rules.sort_by(|one, other| {
        let pairs = one.conditions.iter().zip(&other.conditions);
        let different = pairs
            .map(|(one, other)| compare(one, other))
            .find(|order| order.is_ne());
        different.unwrap_or_else(|| one.conditions.len().cmp(&other.conditions.len()))
    });
}

fn compare(one: &Condition, other: &Condition) -> Ordering {
    let class = class(one.operator);
    let order = other
        .index
        .cmp(&one.index)
        .then(class.cmp(&self::class(other.operator)));
    order.then_with(|| match one.operator {
        Operator::Lt | Operator::Le => one.value.cmp(&other.value),
        _ => other.value.cmp(&one.value),
    })
}

fn class(operator: Operator) -> u8 {
    match operator {
        Operator::Eq | Operator::Ne | Operator::MaskedEq => 0,
        Operator::Lt | Operator::Le => 1,
        Operator::Gt | Operator::Ge => 2,
    }
}
