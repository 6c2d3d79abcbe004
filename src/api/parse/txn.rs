//! Transactions: each operation of a branch is parsed as it would be alone.

use super::cart::owner;
use super::{Echo, Origin, Parsed, Query, Read, Write, identity};
use crate::api::Error;
use crate::node::ReadMode;
use crate::proto::v1::{self, compare as wire, operation::Request};
use crate::state::{Command, Compare, Operand, Operation, Relation, Step, Subject, Txn};
use crate::types::{Invalid, Key, Namespace, Revision, TokenHash, Value};

/// What the responses to a transaction's operations repeat of their requests.
#[derive(Debug)]
pub(crate) struct TxnEcho {
    pub then: Vec<StepEcho>,
    pub otherwise: Vec<StepEcho>,
}

/// What the response to one of them repeats.
#[derive(Debug)]
pub(crate) enum StepEcho {
    Write(Echo),
    GetSession,
    GetCart,
    GetKey(Key),
}

macro_rules! operations {
    ($($variant:ident),* $(,)?) => {
        /// The namespace of an operation that may stand in a transaction.
        fn namespace_of(request: &mut Request) -> Option<&mut String> {
            match request {
                $(Request::$variant(request) => Some(&mut request.namespace),)*
                _ => None,
            }
        }
    };
}

operations! {
    CreateSession,
    GetSession,
    UpdateSession,
    SaveSession,
    TouchSession,
    RotateSession,
    DestroySession,
    EndSession,
    RevokeAllSessions,
    SetNamespace,
    AddCartLine,
    SetCartLineQuantity,
    RemoveCartLine,
    ClearCart,
    GetCart,
    UpdateCart,
    MergeCarts,
    FreezeCart,
    ReleaseCart,
    CompleteOrder,
    GetKey,
    PutKey,
    DeleteKey,
    IncrementKey,
    KeepLeaseAlive,
    RevokeLease,
}

pub(super) fn txn(r: v1::TxnRequest, origin: Origin) -> Result<Write, Error> {
    let namespace = Namespace::parse(r.namespace)?;
    let identity = identity(r.request_id, origin)?;
    // Before each of them is looked at.
    Txn::check_counts(r.compare.len(), r.then.len(), r.otherwise.len())?;
    let compares = r.compare.into_iter().enumerate();
    let compares = compares.map(|(index, it)| {
        let parsed = compare(it);
        parsed.map_err(|source| inside("compare", index, source))
    });
    let compares = compares.collect::<Result<_, _>>()?;
    let (then, then_echo) = branch("then", r.then, &namespace)?;
    let (otherwise, otherwise_echo) = branch("otherwise", r.otherwise, &namespace)?;
    let operation = Operation::Txn(Box::new(Txn::new(compares, then, otherwise)?));
    Ok(Write {
        command: Command::new(namespace, identity, operation),
        echo: Echo::Txn(Box::new(TxnEcho {
            then: then_echo,
            otherwise: otherwise_echo,
        })),
    })
}

fn inside(branch: &'static str, index: usize, source: Error) -> Error {
    Error::InTxn {
        branch,
        index,
        source: Box::new(source),
    }
}

fn branch(
    name: &'static str,
    operations: Vec<v1::Operation>,
    namespace: &Namespace,
) -> Result<(Vec<Step>, Vec<StepEcho>), Error> {
    let mut steps = Vec::with_capacity(operations.len());
    let mut echoes = Vec::with_capacity(operations.len());
    for (index, operation) in operations.into_iter().enumerate() {
        let parsed = step(operation, namespace);
        let (step, echo) = parsed.map_err(|source| inside(name, index, source))?;
        steps.push(step);
        echoes.push(echo);
    }
    Ok((steps, echoes))
}

fn step(operation: v1::Operation, namespace: &Namespace) -> Result<(Step, StepEcho), Error> {
    let v1::Operation { sequence, request } = operation;
    let mut request = request.ok_or(Invalid::Empty { field: "request" })?;
    let own = namespace_of(&mut request).ok_or(NOT_IN_TXN)?;
    if !own.is_empty() && own != namespace.as_str() {
        return Err(Error::Invalid(Invalid::Malformed {
            field: "namespace",
            expected: "the transaction's own, or nothing",
        }));
    }
    namespace.as_str().clone_into(own);
    if sequence != 0 {
        return Err(Error::Invalid(Invalid::Exclusive {
            first: "sequence",
            second: "a transaction's own",
        }));
    }
    match super::operation(request, Origin::Txn)? {
        Parsed::Write(Write { command, echo }) => {
            Ok((Step::write(command.operation)?, StepEcho::Write(echo)))
        }
        Parsed::Read(read) => get(read),
    }
}

const NOT_IN_TXN: Invalid = Invalid::Malformed {
    field: "request",
    expected: "an operation that may stand in a transaction",
};

fn get(read: Read) -> Result<(Step, StepEcho), Error> {
    if read.mode != ReadMode::Linearizable {
        return Err(Error::Invalid(Invalid::Malformed {
            field: "read",
            expected: "nothing: a transaction reads what it changes",
        }));
    }
    let (subject, echo) = match read.query {
        Query::Session { touch: true, .. } => {
            return Err(Error::Invalid(Invalid::Malformed {
                field: "touch",
                expected: "false: a transaction has an operation for that",
            }));
        }
        Query::Session { token, .. } => (Subject::Session(token), StepEcho::GetSession),
        Query::Cart { own: true, .. } => {
            return Err(Error::Invalid(Invalid::Malformed {
                field: "own",
                expected: "false: a transaction reads the cart that the owner fills",
            }));
        }
        Query::Cart { owner, .. } => (Subject::Cart(owner), StepEcho::GetCart),
        Query::Key { key, .. } => (Subject::Key(key.clone()), StepEcho::GetKey(key)),
        _ => return Err(NOT_IN_TXN.into()),
    };
    Ok((Step::Get(subject), echo))
}

fn compare(it: v1::Compare) -> Result<Compare, Error> {
    let relation = Relation::parse(it.relation)?;
    let operand = match it.operand.ok_or(Invalid::Empty { field: "operand" })? {
        wire::Operand::Exists(exists) => Operand::Exists(exists),
        wire::Operand::ModRevision(revision) => Operand::ModRevision(Revision::new(revision)),
        wire::Operand::CreateRevision(revision) => Operand::CreateRevision(Revision::new(revision)),
        wire::Operand::Value(value) => Operand::Value(Value::parse(value)?),
        wire::Operand::Counter(number) => Operand::Counter(number),
    };
    let subject = match it.target.ok_or(Invalid::Empty { field: "target" })? {
        wire::Target::Key(key) => Subject::Key(Key::parse(key)?),
        wire::Target::SessionToken(token) => Subject::Session(TokenHash::of_text(&token)),
        wire::Target::Cart(it) => Subject::Cart(owner(Some(it))?),
    };
    Ok(Compare::new(subject, relation, operand)?)
}
