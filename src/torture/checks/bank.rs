//! Money that is neither made nor lost.

use super::Check;
use crate::torture::record::{Audit, NodeAudit};
use crate::torture::tape::Outcome;
use crate::torture::workloads::bank::{ACCOUNTS, Banking, Bankings, INITIAL, account};

/// What is wrong with the balances of one moment, if anything is.
fn add_up(balances: &[i64]) -> Result<(), String> {
    let sum: i64 = balances.iter().sum();
    let expected = INITIAL * i64::from(ACCOUNTS);
    if balances.len() != ACCOUNTS as usize {
        return Err(format!("{} accounts: {balances:?}", balances.len()));
    }
    if sum != expected {
        return Err(format!("{sum} instead of {expected}: {balances:?}"));
    }
    if balances.iter().any(|balance| *balance < 0) {
        return Err(format!("a debt: {balances:?}"));
    }
    Ok(())
}

/// Whoever reads all accounts at once sees the same total, and no debts; and in the end each account holds what it held at
/// first, with all that was acknowledged, and with some of what may have happened.
#[must_use]
pub fn total(entries: &[Bankings], audit: &Audit) -> Check {
    let mut check = Check::new("constant total");
    for entry in entries {
        let (Banking::Read, Some(balances)) = (&entry.call, entry.outcome.answer()) else {
            continue;
        };
        check.examined += 1;
        if let Err(what) = add_up(balances) {
            check.violate(entry.returned_us, what);
        }
    }
    for node in &audit.nodes {
        check.examined += 1;
        let balances = balances(node);
        if let Err(what) = add_up(&balances) {
            check.violate(Some(audit.at_us), format!("node {}: {what}", node.node));
        }
        for (number, balance) in (0..).zip(&balances) {
            let (least, most) = bounds(entries, number);
            if !(least..=most).contains(balance) {
                let what = format!(
                    "node {}: account {number} holds {balance}, which should be from {least} to {most}",
                    node.node
                );
                check.violate_in(&account(number), Some(audit.at_us), what);
            }
        }
    }
    check.expect_facts()
}

fn balances(node: &NodeAudit) -> Vec<i64> {
    let held = (0..ACCOUNTS).filter_map(|number| node.keys.get(&account(number)));
    held.filter_map(|(value, _)| value.parse().ok()).collect()
}

/// What an account may hold in the end.
fn bounds(entries: &[Bankings], number: u32) -> (i64, i64) {
    let (mut least, mut most) = (INITIAL, INITIAL);
    for entry in entries {
        let Banking::Transfer { from, to, amount } = entry.call else {
            continue;
        };
        let change = i64::from(to == number) * amount - i64::from(from == number) * amount;
        match entry.outcome {
            Outcome::Answered(_) => {
                least += change;
                most += change;
            }
            Outcome::Unknown => {
                least += change.min(0);
                most += change.max(0);
            }
            Outcome::Refused(_) | Outcome::NotApplied => {}
        }
    }
    (least, most)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{assert_invalid, assert_valid, audit_of, lost, refused, told};
    use super::*;

    const PAY: Banking = Banking::Transfer {
        from: 0,
        to: 1,
        amount: 30,
    };

    fn held(balances: &[i64]) -> Audit {
        let balances = (0..).zip(balances);
        audit_of(balances.map(|(number, held)| (account(number), held.to_string())))
    }

    #[test]
    fn transfers_that_happened_or_may_have_are_right() {
        let paid = [told(0, 1, PAY, vec![]), lost(2, 3, PAY), refused(4, 5, PAY)];
        assert_valid(&total(&paid, &held(&[70, 130, 100, 100, 100, 100])));
        assert_valid(&total(&paid, &held(&[40, 160, 100, 100, 100, 100])));
        let never = total(&paid, &held(&[100, 100, 100, 100, 100, 100]));
        assert_invalid(&never, "account 0 holds 100");
        let thrice = total(&paid, &held(&[10, 190, 100, 100, 100, 100]));
        assert_invalid(&thrice, "account 1 holds 190");
    }

    #[test]
    fn half_of_a_transfer_is_found_wherever_it_is_seen() {
        let whole = held(&[100; 6]);
        let half = [told(0, 1, Banking::Read, vec![70, 100, 100, 100, 100, 100])];
        assert_invalid(&total(&half, &whole), "570 instead of 600");
        let debt = [told(
            0,
            1,
            Banking::Read,
            vec![-10, 210, 100, 100, 100, 100],
        )];
        assert_invalid(&total(&debt, &whole), "a debt");
        assert_invalid(&total(&[], &held(&[100, 100])), "2 accounts");
        let good = [told(0, 1, Banking::Read, vec![100; 6])];
        assert_valid(&total(&good, &whole));
    }
}
