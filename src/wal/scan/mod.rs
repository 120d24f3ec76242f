//! Reading a log: the segments it consists of, the frames in them, and what decides where it ends.
//!
//! `segment_set` finds the segments, `scanner` reads their frames in order, `tail_scan` searches
//! what lies behind an invalid frame, and `evidence` decides whether that is a torn tail or damage.

pub(crate) mod evidence;
pub(crate) mod reader;
pub(crate) mod scanner;
pub(crate) mod segment_set;
mod tail_scan;

pub use reader::Records;
pub use scanner::Tail;
