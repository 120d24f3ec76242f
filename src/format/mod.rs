//! Pure codecs of everything that lies on disk. No I/O, no clock.

mod ids;
pub use ids::{Epoch, Lsn, SegmentId, StoreId, TxnId};
