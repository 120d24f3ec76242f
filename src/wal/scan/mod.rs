//! Reading a log: its segments, the frames in them, and the decision where it ends.
//!
//! `segment_set` checks the segments, and `scanner` reads their frames in order into `chunk`s.
//! `tail_scan` searches the bytes past an invalid frame, and `evidence` decides whether they are a
//! torn tail or damage. Other layers use only the items that are re-exported here.

mod chunk;
mod evidence;
mod scanner;
mod segment_set;
mod tail_scan;

pub(crate) use chunk::{Chunk, records_of};
#[cfg(any(test, feature = "salvage"))]
pub(crate) use scanner::Known;
pub use scanner::Tail;
pub(crate) use scanner::{ScanEnd, Scanner};
#[cfg(any(test, feature = "salvage"))]
pub(crate) use segment_set::check_sequence;
#[cfg(any(test, feature = "inspect"))]
pub(crate) use segment_set::needed_segments;
pub(crate) use segment_set::{Segment, manifest_stand_in, oldest_usable, origin};
