//! openraft's own suite, over the real log and the real state machine together.

use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::*;
use crate::storage::LogStore;

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, (Arc<LogDb>, TempDir)> for Builder {
    async fn build(
        &self,
    ) -> Result<((Arc<LogDb>, TempDir), LogStore, Machine), StorageError<TypeConfig>> {
        let node = Node::new();
        let store = node.log.log(ShardId::ZERO).expect("an empty log");
        Ok(((node.log, node.data), store, node.machine))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_and_machine_pass_openrafts_suite() {
    if let Err(error) = Suite::test_all(Builder).await {
        panic!("{error}");
    }
}
