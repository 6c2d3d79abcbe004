//! What a transaction is made of, and its form in the log.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::limits;
use crate::proto::internal as pb;
use crate::proto::internal::txn_compare::{Operand as WireOperand, Target};
use crate::proto::internal::txn_step::Step as WireStep;
use crate::proto::v1;
use crate::state::cart::CartOperation;
use crate::state::command::{CartOwner, Operation};
use crate::state::command_wire::{hash_bytes, owner};
use crate::state::lease::LeaseOperation;
use crate::types::{Invalid, Key, Revision, TokenHash, Value};

/// Comparisons, and what is done when all of them hold or when one does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Txn {
    compare: Vec<Compare>,
    then: Vec<Step>,
    otherwise: Vec<Step>,
}

/// What stands in a branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Any operation that [`Step::write`] takes.
    Write(Operation),
    /// A look at one record.
    Get(Subject),
}

/// A record, as callers name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A key.
    Key(Key),
    /// A session.
    Session(TokenHash),
    /// A cart.
    Cart(CartOwner),
}

/// What must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compare {
    subject: Subject,
    relation: Relation,
    operand: Operand,
}

/// How what is stored relates to the operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Relation {
    Equal,
    NotEqual,
    Less,
    Greater,
}

/// What a record is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// Whether it is there.
    Exists(bool),
    /// Its mod revision; 0 when it is not there.
    ModRevision(Revision),
    /// Its create revision; 0 when it is not there.
    CreateRevision(Revision),
    /// A key's value, by bytes.
    Value(Value),
    /// A counter's number.
    Counter(i64),
}

impl Txn {
    /// Checks how many comparisons and operations there are, also before they are parsed.
    pub fn check_counts(compare: usize, then: usize, otherwise: usize) -> Result<(), Invalid> {
        check_count("compare", compare, limits::TXN_COMPARES)?;
        check_count("then", then, limits::TXN_OPERATIONS)?;
        check_count("otherwise", otherwise, limits::TXN_OPERATIONS)
    }

    /// Checks the counts, and that one cart is frozen at most: a freeze is named by its holder and its revision, and all of
    /// a transaction has one revision.
    pub fn new(
        compare: Vec<Compare>,
        then: Vec<Step>,
        otherwise: Vec<Step>,
    ) -> Result<Self, Invalid> {
        Self::check_counts(compare.len(), then.len(), otherwise.len())?;
        check_freezes(&then)?;
        check_freezes(&otherwise)?;
        Ok(Self {
            compare,
            then,
            otherwise,
        })
    }

    /// What must hold.
    #[must_use]
    pub fn compare(&self) -> &[Compare] {
        &self.compare
    }

    /// What is done when all comparisons hold, or else.
    #[must_use]
    pub fn branch(&self, succeeded: bool) -> &[Step] {
        if succeeded {
            &self.then
        } else {
            &self.otherwise
        }
    }
}

fn check_count(field: &'static str, actual: usize, limit: usize) -> Result<(), Invalid> {
    if actual > limit {
        return Err(Invalid::TooMany {
            field,
            limit,
            actual,
        });
    }
    Ok(())
}

fn check_freezes(steps: &[Step]) -> Result<(), Invalid> {
    let is_freeze = |step: &&Step| {
        matches!(
            step,
            Step::Write(Operation::Cart(CartOperation::Freeze { .. }))
        )
    };
    check_count("freeze_cart", steps.iter().filter(is_freeze).count(), 1)
}

impl Step {
    /// An operation inside a transaction. There is no transaction in another, no tick, and no grant of a lease: its id is
    /// its revision, and in a transaction it could not be told from another's.
    pub fn write(operation: Operation) -> Result<Self, Invalid> {
        match operation {
            Operation::Txn(_)
            | Operation::RaiseVersion(_)
            | Operation::Tick { .. }
            | Operation::Lease(LeaseOperation::Grant { .. }) => Err(Invalid::Malformed {
                field: "operation",
                expected: "one that may stand in a transaction",
            }),
            operation => Ok(Self::Write(operation)),
        }
    }
}

impl Compare {
    /// Checks that the record has what it is compared with, and that the relation means something.
    pub fn new(subject: Subject, relation: Relation, operand: Operand) -> Result<Self, Invalid> {
        let of_keys = matches!(operand, Operand::Value(_) | Operand::Counter(_));
        if of_keys && !matches!(subject, Subject::Key(_)) {
            return Err(Invalid::Malformed {
                field: "operand",
                expected: "exists or a revision; only keys have a value or a counter",
            });
        }
        let ordered = matches!(relation, Relation::Less | Relation::Greater);
        if ordered && matches!(operand, Operand::Exists(_)) {
            return Err(Invalid::Malformed {
                field: "relation",
                expected: "EQUAL or NOT_EQUAL with exists",
            });
        }
        Ok(Self {
            subject,
            relation,
            operand,
        })
    }

    /// The record.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// The relation.
    #[must_use]
    pub fn relation(&self) -> Relation {
        self.relation
    }

    /// What the record is compared with.
    #[must_use]
    pub fn operand(&self) -> &Operand {
        &self.operand
    }
}

impl Relation {
    /// Whether it holds between two things that are ordered so.
    #[must_use]
    pub fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::Greater => order.is_gt(),
        }
    }

    /// From a message's field.
    pub fn parse(relation: i32) -> Result<Self, Invalid> {
        use v1::Relation as Wire;
        match Wire::try_from(relation) {
            Ok(Wire::Unspecified | Wire::Equal) => Ok(Self::Equal),
            Ok(Wire::NotEqual) => Ok(Self::NotEqual),
            Ok(Wire::Less) => Ok(Self::Less),
            Ok(Wire::Greater) => Ok(Self::Greater),
            Err(_) => Err(Invalid::Malformed {
                field: "relation",
                expected: "EQUAL, NOT_EQUAL, LESS or GREATER",
            }),
        }
    }
}

impl From<Relation> for v1::Relation {
    fn from(relation: Relation) -> Self {
        match relation {
            Relation::Equal => Self::Equal,
            Relation::NotEqual => Self::NotEqual,
            Relation::Less => Self::Less,
            Relation::Greater => Self::Greater,
        }
    }
}

// ---- the log's form -----------------------------------------------------------------------------------------

impl From<&Txn> for pb::TxnCommand {
    fn from(txn: &Txn) -> Self {
        Self {
            compare: txn.compare.iter().map(Into::into).collect(),
            then: txn.then.iter().map(Into::into).collect(),
            otherwise: txn.otherwise.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Compare> for pb::TxnCompare {
    fn from(compare: &Compare) -> Self {
        let target = match &compare.subject {
            Subject::Key(key) => Target::Key(key.as_str().to_owned()),
            Subject::Session(token) => Target::SessionTokenHash(hash_bytes(token)),
            Subject::Cart(owner) => Target::Cart(owner.into()),
        };
        let operand = match &compare.operand {
            Operand::Exists(exists) => WireOperand::Exists(*exists),
            Operand::ModRevision(revision) => WireOperand::ModRevision(revision.get()),
            Operand::CreateRevision(revision) => WireOperand::CreateRevision(revision.get()),
            Operand::Value(value) => WireOperand::Value(value.as_bytes().clone()),
            Operand::Counter(number) => WireOperand::Counter(*number),
        };
        Self {
            relation: v1::Relation::from(compare.relation).into(),
            target: Some(target),
            operand: Some(operand),
        }
    }
}

impl From<&Step> for pb::TxnStep {
    fn from(step: &Step) -> Self {
        let step = match step {
            Step::Write(operation) => WireStep::Write(pb::Command {
                operation: Some(operation.into()),
                ..pb::Command::default()
            }),
            Step::Get(Subject::Session(token)) => WireStep::GetSession(hash_bytes(token)),
            Step::Get(Subject::Cart(owner)) => WireStep::GetCart(owner.into()),
            Step::Get(Subject::Key(key)) => WireStep::GetKey(key.as_str().to_owned()),
        };
        Self { step: Some(step) }
    }
}

impl TryFrom<pb::TxnCommand> for Txn {
    type Error = Invalid;

    fn try_from(it: pb::TxnCommand) -> Result<Self, Invalid> {
        let compare = it.compare.into_iter().map(Compare::try_from);
        let compare = compare.collect::<Result<_, _>>()?;
        Self::new(compare, steps(it.then)?, steps(it.otherwise)?)
    }
}

fn steps(steps: Vec<pb::TxnStep>) -> Result<Vec<Step>, Invalid> {
    steps.into_iter().map(Step::try_from).collect()
}

impl TryFrom<pb::TxnCompare> for Compare {
    type Error = Invalid;

    fn try_from(it: pb::TxnCompare) -> Result<Self, Invalid> {
        let subject = match it.target.ok_or(Invalid::Empty { field: "target" })? {
            Target::Key(key) => Subject::Key(Key::parse(key)?),
            Target::SessionTokenHash(hash) => session(&hash)?,
            Target::Cart(it) => Subject::Cart(owner(Some(it))?),
        };
        let operand = match it.operand.ok_or(Invalid::Empty { field: "operand" })? {
            WireOperand::Exists(exists) => Operand::Exists(exists),
            WireOperand::ModRevision(revision) => Operand::ModRevision(Revision::new(revision)),
            WireOperand::CreateRevision(revision) => {
                Operand::CreateRevision(Revision::new(revision))
            }
            WireOperand::Value(value) => Operand::Value(Value::parse(value)?),
            WireOperand::Counter(number) => Operand::Counter(number),
        };
        Self::new(subject, Relation::parse(it.relation)?, operand)
    }
}

impl TryFrom<pb::TxnStep> for Step {
    type Error = Invalid;

    fn try_from(it: pb::TxnStep) -> Result<Self, Invalid> {
        let empty = || Invalid::Empty { field: "operation" };
        match it.step.ok_or_else(empty)? {
            WireStep::Write(command) => {
                Self::write(command.operation.ok_or_else(empty)?.try_into()?)
            }
            WireStep::GetSession(hash) => Ok(Self::Get(session(&hash)?)),
            WireStep::GetCart(it) => Ok(Self::Get(Subject::Cart(owner(Some(it))?))),
            WireStep::GetKey(key) => Ok(Self::Get(Subject::Key(Key::parse(key)?))),
        }
    }
}

fn session(hash: &Bytes) -> Result<Subject, Invalid> {
    TokenHash::parse(hash).map(Subject::Session)
}
