//! `trolley txn`.

use clap::Args;
use serde_json::{Value, json};

use super::arguments::{Form, Target, WriteArgs, identified};
use super::failure::Failure;
use super::input::Input;
use super::{message, output};
use crate::proto::v1;

pub(super) const EXAMPLES: &str = r#"The document has the names of the protos: the requests of every operation, without a namespace.
Relations are RELATION_EQUAL (the default), RELATION_NOT_EQUAL, RELATION_LESS, RELATION_GREATER;
a comparison is about a key, a session_token or a cart, and its exists, mod_revision,
create_revision, value or counter. Bytes are text, or {"base64": "…"}.

Example: take two from the stock and put them into a cart, if the cart is as it was read.
  trolley txn - <<'END'
  {
    "compare": [
      { "cart": { "user_id": "ada" }, "mod_revision": 7 }
    ],
    "then": [
      { "increment_key": { "key": "stock/SKU-1", "delta": -2, "min": 0 } },
      { "add_cart_line": { "owner": { "user_id": "ada" }, "sku": "SKU-1", "quantity": 2 } }
    ],
    "otherwise": [
      { "get_cart": { "owner": { "user_id": "ada" } } }
    ]
  }
  END"#;

/// What is to be done.
#[derive(Debug, Args)]
pub(super) struct TxnArgs {
    /// A file with the transaction as JSON; - reads it from standard input
    file: String,
    #[command(flatten)]
    write: WriteArgs,
}

impl TxnArgs {
    pub async fn run(self, target: &Target) -> Result<(), Failure> {
        let request = self.request(&target.namespace)?;
        let client = target.connect()?;
        let txn = client.txn_of(request);
        let done = identified!(txn, self.write).send().await?;
        let results = done.results.iter().map(result);
        match target.form() {
            Form::Json => {
                let results: Vec<_> = results.collect();
                let fields = json!({ "succeeded": done.succeeded, "results": results });
                output::line(&output::reply(&done, fields).to_string())?;
            }
            Form::People => {
                let branch = if done.succeeded { "then" } else { "otherwise" };
                output::people(&format!("{branch}, at revision {}", done.revision))?;
                for (nth, result) in results.enumerate() {
                    output::people(&format!("{branch}[{nth}] {result}"))?;
                }
            }
        }
        Ok(())
    }

    fn request(&self, namespace: &str) -> Result<v1::TxnRequest, Failure> {
        let text = Input::default().file(&self.file)?;
        let usage = |problem: String| Failure::Usage(format!("{}: {problem}", self.file));
        let json = serde_json::from_slice(&text).map_err(|e| usage(e.to_string()))?;
        let request: v1::TxnRequest =
            message::parse("trolley.v1.TxnRequest", json).map_err(usage)?;
        if !request.namespace.is_empty() && request.namespace != namespace {
            let problem = format!(
                "it is for namespace '{}', and --namespace is '{namespace}'",
                request.namespace
            );
            return Err(usage(problem));
        }
        Ok(request)
    }
}

/// An operation's response under its name, without the parts that a result has not.
fn result(outcome: &v1::Outcome) -> Value {
    let mut json = message::to_json("trolley.v1.Outcome", outcome);
    let Some(object) = json.as_object_mut() else {
        return json;
    };
    for field in ["sequence", "revision", "replayed"] {
        object.remove(field);
    }
    for response in object.values_mut().filter_map(Value::as_object_mut) {
        response.remove("header");
    }
    json
}
