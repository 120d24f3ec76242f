//! The peers, one file each.

mod fjall;
mod lmdb;
mod okaywal;
mod raft_engine;
mod redb;
pub mod redis;
#[cfg(feature = "rocksdb")]
mod rocks;
pub mod seawal;
mod sled;
mod sqlite;

use crate::peer::Peer;

/// All peers that can be measured here, this engine first.
pub fn all() -> Vec<Peer> {
    let mut peers = vec![
        seawal::peer(),
        seawal::view(),
        raft_engine::peer(),
        okaywal::peer(),
        fjall::peer(),
        redb::peer(),
        lmdb::peer(),
        lmdb::held(),
        sled::peer(),
        sqlite::peer(),
    ];
    #[cfg(feature = "rocksdb")]
    peers.push(rocks::peer());
    if redis::version().is_some() {
        peers.push(redis::peer());
    }
    peers
}
